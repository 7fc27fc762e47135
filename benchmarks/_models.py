"""Families of Llama-shaped models: a base and four tuned from it, in bfloat16.

Made once in benchmarks/out/models and used again; remove a folder to have it made anew.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._report import OUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

MODELS = OUT / "models"
BASE, TUNED = "base", ("a", "b", "c", "d")
# By the number of parameters: settings of transformers' LlamaConfig.
SIZES = {
    "0.1M": {
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 256,
    },
    "34M": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "vocab_size": 8064,
    },
    "336M": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 21,
        "num_attention_heads": 16,
        "vocab_size": 32256,
    },
    "1.1B": {  # TinyLlama's shape
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
    },
}
_WEIGHTS, _GAINS, _CHANGES = (
    0.02,
    0.1,
    2e-4,
)  # standard deviations; of the changes: the median row's


def make_family(size: str, models: Path = MODELS) -> Path:
    """The folder with the models of a size of `SIZES`; the same bytes wherever it is made."""
    family = models / size
    if family.exists():
        return family
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SIZES[size], architectures=["LlamaForCausalLM"], dtype="bfloat16")
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    staging = models / f".{size}.partial"
    shutil.rmtree(staging, ignore_errors=True)
    for name in (BASE, *TUNED):
        config.save_pretrained(staging / name)
        _write_tokenizer(staging / name)
    _write_weights(staging, shapes)
    staging.rename(family)
    return family


def weight_files(family: Path, *, base: bool = True) -> list[Path]:
    """The weight files of the tuned models, and of their base."""
    names = (BASE, *TUNED) if base else TUNED
    return [family / name / "model.safetensors" for name in names]


def _write_weights(family: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """One tensor of all models at a time."""
    import torch

    from alliage.checkpoints.writer import TensorWriter, plan_layout

    layout = plan_layout(
        ((name, "BF16", shape) for name, shape in shapes.items()), max_shard_bytes=2**40
    )
    with ExitStack() as stack:
        writers = [
            stack.enter_context(TensorWriter(family / name, layout)) for name in (BASE, *TUNED)
        ]
        for number, (name, shape) in enumerate(shapes.items()):
            for writer, tensor in zip(writers, _versions(number, shape), strict=True):
                raw = tensor.bfloat16().view(torch.uint8).numpy()
                writer.write(name, 0, raw.data.cast("B"))


def _versions(number: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """A parameter of the base, then of each tuned model."""
    import torch

    generators = [torch.Generator().manual_seed(number * 10 + seed) for seed in range(5)]
    base = torch.randn(shape, generator=generators[0]) * (_WEIGHTS if len(shape) > 1 else _GAINS)
    if len(shape) == 1:  # the gain of a norm
        base += 1
    yield base
    base = base.bfloat16().float()
    for generator in generators[1:]:
        # Tuning moves some rows far more than others.
        rows = torch.randn((shape[0], *(1 for _ in shape[1:])), generator=generator).exp_()
        yield torch.randn(shape, generator=generator).mul_(rows * _CHANGES).add_(base)


def _write_tokenizer(folder: Path) -> None:
    """The smallest that transformers loads: mergers copy one."""
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
