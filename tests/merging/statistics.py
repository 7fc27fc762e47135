"""Files of statistics as `alliage statistics` writes them, with numbers that tests choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.statistics import (
    Origin,
    StatisticsKind,
    describe_model,
    weight_digests,
    written,
)


def save(
    model: Path,
    kind: StatisticsKind,
    tensors: Mapping[str, torch.Tensor],
    *,
    out: Path | None = None,
    everyone: Sequence[Path] = (),
    **more: Any,
) -> Path:
    """Write statistics of a model's folder, by default where a merge looks for them."""
    with open_checkpoint(model) as checkpoint:
        models = describe_model(checkpoint)
    merged_with = []
    for other in everyone:
        with open_checkpoint(other) as checkpoint:
            merged_with.append(weight_digests(describe_model(checkpoint)))
    place = out or model / f"{kind}.safetensors"
    origin = Origin(kind, "mood", "train", 4, models, merged_with=merged_with, **more)
    with written(place, {n: t.shape for n, t in tensors.items()}, origin) as writer:
        for name, tensor in tensors.items():
            raw = tensor.float().contiguous().view(torch.uint8).numpy()
            writer.write(name, 0, memoryview(raw.data).cast("B"))
    return place


def store_statistics(model: Path, kind: StatisticsKind | None) -> None:
    """Some numbers for every tensor of a model, where a method needs any."""
    if kind is None:
        return
    with open_checkpoint(model) as checkpoint:
        shapes = {name: spec.shape for name, spec in checkpoint.specs().items()}
    generator = torch.Generator().manual_seed(0)
    if kind == "fisher":
        save(model, kind, {n: torch.rand(s, generator=generator) for n, s in shapes.items()})
        return
    layers = {name: shape[1] for name, shape in shapes.items() if len(shape) == 2}
    save(model, kind, {n: gram(size, generator) for n, size in layers.items()})


def gram(size: int, generator: torch.Generator) -> torch.Tensor:
    """E xxᵀ over some inputs, [size, size]."""
    inputs = torch.randn(3 * size, size, generator=generator)
    return inputs.mT @ inputs / len(inputs)
