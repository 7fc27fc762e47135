"""A method on small checkpoints, by the engine: all threads and memories write the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from alliage.merging import describe, plan, run
from alliage.randomness import uniform
from tests.merging.test_odd_inputs import recipe, store

SHAPES = {
    "embeddings.weight": (40, 12),
    "layers.0.weight": (150, 100),  # more elements than the smallest block
    "layers.0.bias": (150,),
    "layers.1.conv.weight": (6, 4, 3, 3),
    "layers.1.gate.weight": (1, 9),
    "norm.weight": (9001,),
}


def checkpoints(
    home: Path, names: str = "abc", *, base: bool = True, coarse: bool = False
) -> list[dict[str, Tensor]]:
    """Folders of models that differ from one base; their tensors, the base's first.

    Args:
        home: where they are stored.
        names: of the models.
        base: whether the base is stored too.
        coarse: draw from few values, so that many magnitudes are equal and some deltas are zero;
            otherwise they differ a little.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(size: float) -> dict[str, Tensor]:
        values = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        if coarse:
            return {name: (2 * tensor).round() / 2 for name, tensor in values.items()}
        return {name: size * tensor for name, tensor in values.items()}

    first = drawn(1.0)
    models = [first]
    for name in names:
        models.append({key: first[key] + step for key, step in drawn(0.1).items()})
        store(home / name, models[-1])
    if base:
        store(home / "base", first)
    return models


def merged_everyhow(home: Path, method: str, names: str = "abc", **more) -> dict[str, Tensor]:
    """The merged tensors, the same bytes for one thread and two, small blocks and large."""
    chosen = recipe(home, method, names, **more)
    made = plan(chosen)
    written = []
    for threads in (1, 2):
        for memory in (made.least_memory, made.memory):
            out = home / f"{threads}-{memory}"
            run(plan(chosen, threads=threads, memory=threads * memory), out)
            written.append((out / "model.safetensors").read_bytes())
    assert len(set(written)) == 1, "the same bytes"
    return load_file(out / "model.safetensors")


def assert_streamed_is_whole(
    home: Path,
    method: str,
    parameters: dict | None = None,
    *,
    base: bool = True,
    coarse: bool = False,
) -> None:
    """Merged from two models, the engine's values are the function's, bit by bit."""
    models = checkpoints(home, "ab", base=base, coarse=coarse)
    settings = {"base": "base" if base else None, "parameters": parameters or {}}
    found = merged_everyhow(home, method, "ab", **settings)
    declared = describe(method)
    merged = plan(recipe(home, method, "ab", **settings)).merged
    assert {tensor.name for tensor in merged} == found.keys() == SHAPES.keys()
    for tensor in merged:
        name, arguments = tensor.name, dict(tensor.arguments)
        if declared.random:
            numel = found[name].numel()
            rows = [uniform(arguments["seed"], name, model, 0, numel) for model in range(2)]
            arguments["uniform"] = torch.from_numpy(np.stack(rows)).reshape(2, *SHAPES[name])
        if declared.space == "delta":
            expected = models[0][name] + declared.function(deltas_of(models, name), **arguments)
        else:
            tuned = torch.stack([model[name] for model in models[1:]])
            expected = declared.function(tuned, **arguments)
        assert torch.equal(found[name], expected), name


def deltas_of(models: list[dict[str, Tensor]], name: str) -> Tensor:
    """[n, ...], one parameter's task vectors."""
    base, *tuned = models
    return torch.stack([model[name] - base[name] for model in tuned])
