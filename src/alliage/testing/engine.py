"""What every merge method keeps when the engine streams it over files."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.statistics import Origin, describe_model, weight_digests, written
from alliage.merging.engine.run import run
from alliage.merging.planning.planner import plan
from alliage.merging.recipe.files import parse_recipe
from alliage.merging.registry import Method

_MODELS = 3
_SHAPES = {
    "embeddings.word_embeddings.weight": (40, 24),
    "encoder.layer.0.attention.self.query.weight": (48, 24),
    "encoder.layer.0.attention.self.query.bias": (48,),
    "encoder.layer.0.output.LayerNorm.weight": (24,),
    # Longer than the smallest block.
    "encoder.layer.0.intermediate.dense.weight": (512, 24),
}
_LINEAR = tuple(name for name in _SHAPES if "query.weight" in name or "dense" in name)
_BUFFER = "embeddings.position_ids"
_RANK = 2


def check_in_engine(method: Method) -> None:
    """Check a method on files: threads and blocks, the output's type, the inputs.

    The same bytes, whatever the threads and the memory. A bfloat16 output is the float32 one,
    rounded once. Integer buffers are the base's. No input changes.

    Raises:
        AssertionError: with the rule that is broken.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        content = _write(method, home)
        before = _digests(home)
        whole = _merged(content, home / "whole", "float32", threads=1)
        roomy = plan(parse_recipe(content), threads=3)
        tight = max(roomy.memory_for(3), roomy.least_memory)
        small = _merged(content, home / "small", "float32", threads=3, memory=tight)
        assert _bytes(home / "small") == _bytes(home / "whole"), "threads and blocks change nothing"
        rounded = _merged(content, home / "rounded", "bfloat16", threads=1)
        for name, tensor in whole.items():
            assert tensor.isfinite().all(), f"{name} is finite"
            expected = tensor.bfloat16() if tensor.is_floating_point() else tensor
            assert torch.equal(rounded[name], expected), f"{name} is rounded once"
        if _BUFFER in whole:
            assert torch.equal(small[_BUFFER], torch.arange(5)), "integer buffers are the base's"
        after = {name: digest for name, digest in _digests(home).items() if name in before}
        assert after == before, "the inputs are untouched"


def _write(method: Method, home: Path) -> dict[str, Any]:
    """A base and models on disk, with what the method needs; the recipe that merges them."""
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in _SHAPES.items()}
    base[_BUFFER] = torch.arange(5)
    _save(home / "base", base)
    count = method.models or _MODELS
    models = []
    for number in range(count):
        folder = home / f"model{number}"
        models.append(folder)
        if method.unit == "factors":
            _save_adapter(folder, generator, home / "base")
            continue
        tuned = {
            name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in base.items()
        }
        _save(folder, tuned)
    if method.statistics is not None:
        _save_statistics(method, models, generator)
    return {
        "method": method.name, "base": str(home / "base"), "models": [str(each) for each in models]
    }  # fmt: skip


def _save(folder: Path, tensors: dict[str, Tensor]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    save_file(tensors, folder / "model.safetensors")


def _save_adapter(folder: Path, generator: torch.Generator, base: Path) -> None:
    factors = {}
    for name in _LINEAR:
        d_out, d_in = _SHAPES[name]
        module = f"base_model.model.{name.removesuffix('.weight')}"
        factors[f"{module}.lora_A.weight"] = torch.randn(_RANK, d_in, generator=generator)
        factors[f"{module}.lora_B.weight"] = torch.randn(d_out, _RANK, generator=generator)
    folder.mkdir()
    settings = {
        "peft_type": "LORA", "r": _RANK, "lora_alpha": 2 * _RANK,
        "target_modules": ["query", "dense"], "base_model_name_or_path": str(base),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(factors, folder / "adapter_model.safetensors")


def _statistics(
    method: Method, count: int, generator: torch.Generator
) -> Iterator[dict[str, Tensor]]:
    """For each model, what might have been collected."""
    for _ in range(count):
        if method.statistics == "fisher":
            yield {name: torch.rand(shape, generator=generator) for name, shape in _SHAPES.items()}
            continue
        inputs = {name: torch.randn(50, _SHAPES[name][1], generator=generator) for name in _LINEAR}
        yield {name: seen.mT @ seen / len(seen) for name, seen in inputs.items()}


def _save_statistics(method: Method, models: list[Path], generator: torch.Generator) -> None:
    """Beside each model, what might have been collected of it."""
    assert method.statistics is not None
    described = []
    for model in models:
        with open_checkpoint(model) as checkpoint:
            described.append(describe_model(checkpoint))
    merged: dict[str, Any] = {}
    if method.statistics == "regmean_plus_plus":  # which hold for one merge alone
        merged["merged_with"] = [weight_digests(each) for each in described]
        merged["parameters"] = {
            name: each.default for name, each in method.parameters.items() if not each.per_model
        }
    for model, own, tensors in zip(
        models, described, _statistics(method, len(models), generator), strict=True
    ):
        origin = Origin(
            kind=method.statistics, task="t", split="train", examples=50, models=own, **merged
        )
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        with written(model / f"{method.statistics}.safetensors", shapes, origin) as writer:
            for name, tensor in tensors.items():
                writer.write(name, 0, tensor.contiguous().numpy().data.cast("B"))


def _merged(content: Mapping[str, Any], out: Path, dtype: str, **given: Any) -> dict[str, Tensor]:
    run(plan(parse_recipe({**content, "dtype": dtype}), out=out, **given), out)
    return {name: tensor for file in _files(out) for name, tensor in load_file(file).items()}


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in _files(folder)}


def _digests(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }
