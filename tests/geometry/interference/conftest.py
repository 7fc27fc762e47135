"""Models of a few tensors, as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

SHAPES = {
    "embeddings.word_embeddings.weight": (20, 6),
    "encoder.layer.0.attention.self.query.bias": (6,),
    "encoder.layer.0.attention.self.query.weight": (6, 6),
    "encoder.layer.0.output.dense.weight": (6, 12),
    "encoder.layer.1.attention.self.query.bias": (6,),
    "encoder.layer.1.attention.self.query.weight": (6, 6),
    "encoder.layer.1.output.dense.weight": (6, 12),
}


@pytest.fixture
def write(tmp_path) -> Callable[[str, Mapping[str, torch.Tensor]], Path]:
    """Write a model's tensors to a folder of that name."""

    def put(name: str, tensors: Mapping[str, torch.Tensor]) -> Path:
        (tmp_path / name).mkdir()
        save_file(dict(tensors), tmp_path / name / "model.safetensors")
        return tmp_path / name

    return put


@pytest.fixture
def tuned(write) -> Callable[..., list[Path]]:
    """A base and some models tuned from it; coarse values, so that many entries are equal."""

    def make(count: int, *, coarse: bool = False, seed: int = 0) -> list[Path]:
        generator = torch.Generator().manual_seed(seed)
        base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        base = {name: tensor.bfloat16().float() for name, tensor in base.items()}
        folders = [write("base", base)]
        for number in range(count):
            model = {}
            for name, tensor in base.items():
                change = torch.randn(tensor.shape, generator=generator)
                change = (2 * change).round() / 4 if coarse else change * 0.1
                model[name] = tensor + change
            folders.append(write(f"model{number}", model))
        return folders

    return make
