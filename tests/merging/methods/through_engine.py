"""A method on small checkpoints, by the engine: all threads and memories write the same bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from alliage.merging import plan, run
from tests.merging.test_odd_inputs import recipe, store

SHAPES = {
    "embeddings.weight": (40, 12),
    "layers.0.weight": (150, 100),  # more elements than the smallest block
    "layers.0.bias": (150,),
    "layers.1.conv.weight": (6, 4, 3, 3),
    "layers.1.gate.weight": (1, 9),
    "norm.weight": (9001,),
}


def checkpoints(home: Path, names: str = "abc", *, base: bool = True) -> list[dict[str, Tensor]]:
    """Folders of models that differ a little from one base; their tensors, the base's first."""
    generator = torch.Generator().manual_seed(0)
    first = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    models = [first]
    for name in names:
        models.append(
            {
                key: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
                for key, tensor in first.items()
            }
        )
        store(home / name, models[-1])
    if base:
        store(home / "base", first)
    return models


def merged_everyhow(home: Path, method: str, names: str = "abc", **more) -> dict[str, Tensor]:
    """The merged tensors, the same bytes for one thread and two, small blocks and large."""
    chosen = recipe(home, method, names, **more)
    least = plan(chosen).least_memory
    written = []
    for number, (threads, memory) in enumerate(((1, 2**30), (2, 2**30), (1, least), (2, least))):
        out = home / f"out{number}"
        run(plan(chosen, threads=threads, memory=memory), out)
        written.append((out / "model.safetensors").read_bytes())
    assert len(set(written)) == 1
    return load_file(home / "out0" / "model.safetensors")


def deltas_of(models: list[dict[str, Tensor]], name: str) -> Tensor:
    """[n, ...], one parameter's task vectors."""
    base, *tuned = models
    return torch.stack([model[name] - base[name] for model in tuned])
