"""Small models that start at random, of a size that is asked for: `model: reference:vit`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from alliage.data import Example, Task
from alliage.errors import Problem, UsageError, nearest
from alliage.tuning.science._settings import Settings

PREFIX = "reference:"
_KINDS: Mapping[str, tuple[str, ...]] = {
    "vit": ("image-classification",),
    "convnext": ("image-classification",),
    "bert": ("sequence-classification", "regression", "token-classification"),
    "blocks": (
        "image-classification", "sequence-classification", "regression", "token-classification",
    ),
}  # fmt: skip
_OF_BLOCKS = ("feed_forward", "norm", "order")
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class ReferenceSettings(Settings):
    """How large the model is, and of blocks, what they are made of."""

    parameters: int = Field(
        default=100_000, ge=1000, description="Of the body; met as nearly as widths allow."
    )
    depth: int = Field(default=4, ge=2, description="Layers; of convnext in two stages.")
    heads: int = Field(default=4, ge=1, description="Of attention; they divide the width.")
    feed_forward: Literal["relu", "gelu", "silu", "geglu", "swiglu"] = Field(
        default="gelu", description="Of blocks; geglu and swiglu are gated (arXiv:2002.05202)."
    )
    norm: Literal["batch", "layer", "rms"] = Field(default="layer", description="Of blocks.")
    order: Literal["pre", "post"] = Field(
        default="pre",
        description="Of blocks: norms before each part, or after its sum (arXiv:2002.04745).",
    )
    patch: int | None = Field(
        default=None,
        ge=1,
        description="Pixels of a patch's side; an eighth of the image's by default, of convnext a "
        "sixteenth.",
    )
    vocabulary: int = Field(
        default=4000,
        ge=50,
        description="Tokens of a tokenizer made of the train split.",
    )
    max_length: int = Field(default=128, ge=4, description="Tokens of a text.")


def architecture_of(model: str) -> str | None:
    """The architecture that a recipe's model names; None for a folder or a hub id."""
    return model.removeprefix(PREFIX) if model.startswith(PREFIX) else None


def check(model: str, settings: ReferenceSettings) -> None:
    """Check that an architecture exists and knows the settings.

    Raises:
        ValueError: it does not.
    """
    name = architecture_of(model)
    given = settings.model_fields_set
    if name is None:
        if given:
            raise ValueError(f"reference is set, but model is no {PREFIX}NAME")
        return
    if name not in _KINDS:
        raise ValueError(f"no such reference model: {name}. {nearest(name, _KINDS)}")
    unknown = given & set(_OF_BLOCKS) if name != "blocks" else set()
    if unknown:
        raise ValueError(f"reference: {name} knows no {', '.join(sorted(unknown))}; blocks does")


def write(model: str, settings: ReferenceSettings, task: Task, folder: Path, seed: int) -> None:
    """Write a model's body as a checkpoint: for texts with a tokenizer made of the train split.

    Args:
        model: "reference:NAME", checked.
        settings: its size and parts.
        task: to be tuned on; says how large images are.
        folder: existing.
        seed: of the weights.

    Raises:
        UsageError: an architecture that does not read what the task has, or a size that it cannot
            have.
    """
    name = model.removeprefix(PREFIX)
    if task.kind not in _KINDS[name]:
        fits = [other for other, kinds in _KINDS.items() if task.kind in kinds]
        fix = f"These do: {', '.join(fits)}." if fits else "No reference model does."
        raise UsageError(Problem(model, f"does not read {task.kind}.", fix))
    examples = task.splits["train"]
    if task.kind == "image-classification":
        made = _image_model(name, settings, examples[0].inputs.shape)
    else:
        tokenizer = train_tokenizer(_texts(examples), settings)
        tokenizer.save_pretrained(folder)
        made = _text_model(name, settings, len(tokenizer))
    config = fitted(name, settings, made)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _body(config).save_pretrained(folder)


def train_tokenizer(texts: Iterable[str], settings: ReferenceSettings) -> Any:
    """A tokenizer by byte-pair encoding whose vocabulary comes from texts.

    Not WordPiece: training that gives another vocabulary each time.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=settings.vocabulary, special_tokens=_SPECIAL, show_progress=False
        ),
    )
    start, end = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", start), ("[SEP]", end)],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=settings.max_length,
        **dict(zip(names, _SPECIAL, strict=True)),
    )


Made = Callable[[int, int], Any]


def _image_model(name: str, settings: ReferenceSettings, shape: tuple[int, ...]) -> Made:
    """How to make a configuration from a width and an inner width, for images of a shape."""
    from transformers import ConvNextConfig, ViTConfig

    side = max(shape[:2])
    patch = settings.patch or max(2, round(side / (16 if name == "convnext" else 8)))
    image = {
        "image_size": side // patch * patch,
        "patch_size": patch,
        "num_channels": 1 if len(shape) == 2 else shape[2],
    }
    if name == "convnext":
        first = settings.depth // 2
        return lambda width, inner: ConvNextConfig(
            **image,
            num_stages=2,
            depths=[first, settings.depth - first],
            hidden_sizes=[width, inner],
            layer_scale_init_value=0.1,  # the paper's 1e-6 is for 300 epochs
            initializer_range=width**-0.5,
        )
    if name == "vit":
        return lambda width, inner: ViTConfig(**image, **_transformer(settings, width, inner))
    return lambda width, inner: _blocks(settings, width, inner, **image)


def _text_model(name: str, settings: ReferenceSettings, vocabulary: int) -> Made:
    """The same for texts of a vocabulary."""
    from transformers import BertConfig

    text = {"vocab_size": vocabulary, "max_position_embeddings": settings.max_length}
    if name == "bert":
        return lambda width, inner: BertConfig(**text, **_transformer(settings, width, inner))
    return lambda width, inner: _blocks(settings, width, inner, **text)


def _transformer(settings: ReferenceSettings, width: int, inner: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": inner,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": width**-0.5,  # with 0.02 a narrow stack hardly starts
    }


def _blocks(settings: ReferenceSettings, width: int, inner: int, **more: int) -> Any:
    from alliage.architectures.blocks import BlocksConfig

    shared = _transformer(settings, width, inner)
    del shared["attention_probs_dropout_prob"]
    parts = {name: getattr(settings, name) for name in _OF_BLOCKS}
    return BlocksConfig(**shared, **parts, **more)


def fitted(name: str, settings: ReferenceSettings, made: Made) -> Any:
    """The configuration of an architecture that comes nearest to the size.

    Raises:
        UsageError: the narrowest model is larger than asked for.
    """
    if name == "convnext":  # inside is its second stage
        return _fit(made, settings, PREFIX + name, step=1, ratio=2)
    ratio = 8 / 3 if settings.feed_forward in ("geglu", "swiglu") else 4
    return _fit(made, settings, PREFIX + name, step=settings.heads, ratio=ratio)


def _fit(made: Made, settings: ReferenceSettings, where: str, *, step: int, ratio: float) -> Any:
    """The configuration whose body comes nearest to the size.

    The width is fitted first, with so many of it inside, then the inner width: models that differ
    in the form of their feed-forward alone have one width.

    Args:
        made: makes a configuration from both.
        settings: with the size.
        where: to blame.
        step: what divides the width.
        ratio: inner width for each of width.

    Raises:
        UsageError: the narrowest model is larger than asked for.
    """
    wanted = settings.parameters
    width = step
    while _size(made(width + step, round(ratio * (width + step)))) <= wanted:
        width += step
    inner = bisect_left(range(16 * width), wanted, 1, key=lambda inner: _size(made(width, inner)))
    nearest_two = [made(width, max(1, choice)) for choice in (inner - 1, inner)]
    best = min(nearest_two, key=lambda config: abs(_size(config) - wanted))
    if _size(best) > 1.1 * wanted:
        raise UsageError(
            Problem(
                f"{where}: reference.parameters",
                f"the narrowest has {_size(best):,}, more than the {wanted:,} asked for.",
            )
        )
    return best


def _body(config: Any) -> Any:
    from transformers import AutoModel

    if config.model_type == "vit":
        return AutoModel.from_config(config, add_pooling_layer=False)
    return AutoModel.from_config(config)


def _size(config: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in _body(config).parameters())


def _texts(examples: Iterable[Example]) -> Iterator[str]:
    for example in examples:
        yield from example.inputs
