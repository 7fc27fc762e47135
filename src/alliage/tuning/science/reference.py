"""Small models that start at random, of a size that is asked for: `model: reference:vit`."""

from __future__ import annotations

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
_RATIO = 4  # inner width of a feed-forward, before it is fitted to the size


class ReferenceSettings(Settings):
    """How large the model is, and of blocks, what they are made of."""

    parameters: int = Field(
        100_000, ge=1000, description="Of the body; met within a unit of each feed-forward."
    )
    depth: int = Field(4, ge=2, description="Layers; of convnext in two stages.")
    heads: int = Field(4, ge=1, description="Of attention; they divide the width.")
    feed_forward: Literal["relu", "gelu", "silu", "geglu", "swiglu"] = Field(
        "gelu", description="Of blocks; geglu and swiglu are gated (arXiv:2002.05202)."
    )
    norm: Literal["batch", "layer", "rms"] = Field("layer", description="Of blocks.")
    order: Literal["pre", "post"] = Field(
        "pre", description="Of blocks: norms before each part, or after its sum (arXiv:2002.04745)."
    )
    vocabulary: int = Field(
        4000, ge=50, description="Tokens at most, of a WordPiece tokenizer on the train split."
    )
    max_length: int = Field(128, ge=4, description="Tokens of a text.")


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
    config = _fit(made, settings, model, step=1 if name == "convnext" else settings.heads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _body(config).save_pretrained(folder)


def train_tokenizer(texts: Iterable[str], settings: ReferenceSettings) -> Any:
    """A WordPiece tokenizer whose vocabulary comes from texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
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
    """How to make a configuration from a width and an inner width; for images of a shape."""
    from transformers import ConvNextConfig, ViTConfig

    side = max(shape[:2])
    patch = max(2, round(side / 8))
    image = {
        "image_size": side // patch * patch,
        "patch_size": patch,
        "num_channels": 1 if len(shape) == 2 else shape[2],
    }
    if name == "convnext":
        first = settings.depth // 2
        return lambda width, _: ConvNextConfig(
            **(image | {"patch_size": max(2, patch // 2)}),
            num_stages=2,
            depths=[first, settings.depth - first],
            hidden_sizes=[width, 2 * width],
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
    from alliage.evaluation.blocks import BlocksConfig

    shared = _transformer(settings, width, inner)
    del shared["attention_probs_dropout_prob"]
    parts = {name: getattr(settings, name) for name in _OF_BLOCKS}
    return BlocksConfig(**shared, **parts, **more)


def _fit(made: Made, settings: ReferenceSettings, where: str, step: int) -> Any:
    """The configuration whose body comes nearest to the size.

    The width is fitted first, with an inner width of 4 of them (of 8/3 where gated), then the
    inner width: models that differ in the form of their feed-forward alone have one width.

    Raises:
        UsageError: the narrowest model is larger than asked for.
    """
    wanted = settings.parameters
    ratio = _RATIO * 2 / 3 if settings.feed_forward in ("geglu", "swiglu") else _RATIO
    width = step
    while _size(made(width + step, round(ratio * (width + step)))) <= wanted:
        width += step
    first, second = (_size(made(width, inner)) for inner in (1, 2))
    if first > wanted:
        raise UsageError(
            Problem(
                f"{where}: reference.parameters",
                f"the narrowest has {first:,}, more than the {wanted:,} asked for.",
            )
        )
    if first == second:  # a convolutional network has no inner width: the nearer of two widths
        sizes = {choice: _size(made(choice, 1)) for choice in (width, width + step)}
        return made(min(sizes, key=lambda choice: abs(sizes[choice] - wanted)), 1)
    return made(width, 1 + round((wanted - first) / (second - first)))


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
