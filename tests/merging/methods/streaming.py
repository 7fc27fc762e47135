"""A method through the engine: the same bytes however it is run, and the function's own values."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from alliage.merging import describe, plan, run
from alliage.merging.engine.values import uniform
from tests.merging.test_odd_inputs import recipe, store

SHAPES = {"layers.0.weight": (3, 3001), "layers.1.weight": (70, 90), "norm.weight": (5,)}


def drawn(models: int, *, coarse: bool, seed: int = 0) -> list[dict[str, Tensor]]:
    """Models, the base first: matrices larger than the smallest block, and a vector.

    Args:
        models: how many, the base included.
        coarse: draw from few values, so that many magnitudes are equal and some deltas are zero.
        seed: of the draws.
    """
    draw = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(models):
        tensors = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
        if coarse:
            tensors = {name: (2 * tensor).round() / 2 for name, tensor in tensors.items()}
        made.append(tensors)
    return made


def streamed(
    home, method: str, parameters: dict | None = None, *, base: bool = True, coarse: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the engine writes, and what the function gives for whole tensors.

    Merges two models, with the base or without one; the bytes are compared between one and two
    threads, and between the smallest blocks and larger ones.
    """
    names = ["base", "a", "b"]
    models = drawn(3, coarse=coarse)
    for name, tensors in zip(names, models, strict=True):
        store(home / name, tensors)
    chosen = recipe(home, method, base="base" if base else None, parameters=parameters or {})
    made = plan(chosen)
    written = []
    for threads in (1, 2):
        for memory in (made.least_memory, made.memory):
            out = home / f"{threads}-{memory}"
            again = plan(chosen, threads=threads, memory=threads * memory)
            assert not again.problems
            run(again, out)
            written.append((out / "model.safetensors").read_bytes())
    assert written[1:] == written[:-1], "the same bytes"
    found, expected = load_file(out / "model.safetensors"), {}
    whole = {tensor.name: tensor for tensor in made.merged}
    for name, origin in models[0].items():
        tuned = torch.stack([model[name] for model in models[1:]])
        delta = describe(method).space == "delta"
        arguments = dict(whole[name].arguments)
        if describe(method).random:
            rows = [uniform(arguments["seed"], name, k, 0, origin.numel()) for k in range(2)]
            arguments["uniform"] = torch.from_numpy(np.stack(rows)).reshape(tuned.shape)
        merged = describe(method).function(tuned - origin if delta else tuned, **arguments)
        expected[name] = origin + merged if delta else merged
    return found, expected


def assert_streamed_is_whole(home, method: str, parameters: dict | None = None, **how) -> None:
    """The engine's values are the function's, bit by bit."""
    found, expected = streamed(home, method, parameters, **how)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
