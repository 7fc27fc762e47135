"""From examples to what a model takes, and from encoded examples to padded batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.reference import read_json
from alliage.data.task import Example, Kind
from alliage.errors import AlliageError, Problem

IGNORED = -100  # a token without a label: torch's cross entropy passes over it
# A tokenizer's words are in one of these.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.", "spiece.", "sentencepiece")
# Tokenizers on bytes, which must be told that split words stand apart.
_PREFIX_SPACE = ("bloom", "deberta", "gpt2", "roberta")
# Positions of these count from the padding token's id + 1.
_SHIFTED_POSITIONS = ("camembert", "roberta", "xlm-roberta")


class Encoder(Protocol):
    """Prepares the examples of one model."""

    def encode(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """The model's inputs and "labels" of each example."""

    def collate(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch of encoded examples."""


def encoder_for(
    kind: Kind, checkpoint: Checkpoint, config: Any, *, max_length: int | None = None
) -> Encoder:
    """The encoder that belongs to a model.

    Args:
        kind: of the task.
        checkpoint: with the tokenizer's or image processor's files.
        config: the model's configuration, from transformers.
        max_length: tokens of a text; the model's own limit by default.

    Raises:
        AlliageError: a text task, and the checkpoint holds no fast tokenizer.
    """
    if kind == "image-classification":
        return ImageEncoder(config, _processor(checkpoint))
    return TextEncoder(_tokenizer(checkpoint, config), kind, _limit(config, max_length))


class TextEncoder:
    """Texts, pairs of texts, or sentences split into tokens, through a fast tokenizer.

    A tag belongs to the first sub-word of its token; the others are ignored.
    """

    def __init__(self, tokenizer: Any, kind: Kind, max_length: int) -> None:
        self.tokenizer = tokenizer
        self._by_token = kind == "token-classification"
        self._max_length = min(max_length, tokenizer.model_max_length)

    def encode(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Token ids (and what else the tokenizer gives) and labels; long texts are cut."""
        if not examples:
            return []
        inputs = [example.inputs for example in examples]
        texts: list[Any] = [list(tokens) if self._by_token else tokens[0] for tokens in inputs]
        pairs = None if self._by_token or len(inputs[0]) == 1 else [pair[1] for pair in inputs]
        batch = self.tokenizer(
            texts, pairs, truncation=True, max_length=self._max_length,
            is_split_into_words=self._by_token,
        )  # fmt: skip
        encoded = []
        for index, example in enumerate(examples):
            features = {name: values[index] for name, values in batch.items()}
            features["labels"] = (
                _first_subwords(batch.word_ids(index), example.label)
                if self._by_token
                else example.label
            )
            encoded.append(features)
        return encoded

    def collate(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad to the longest of the batch."""
        inputs = [
            {name: values for name, values in features.items() if name != "labels"}
            for features in encoded
        ]
        batch = dict(self.tokenizer.pad(inputs, return_tensors="pt"))
        labels = [features["labels"] for features in encoded]
        if self._by_token:
            width = batch["input_ids"].shape[1]
            labels = [tags + [IGNORED] * (width - len(tags)) for tags in labels]
        return batch | {"labels": torch.tensor(labels)}


class ImageEncoder:
    """Images scaled to what an image model was trained on, with numpy and PIL alone.

    uint8 times the processor's factor, minus its mean, over its deviation; without a processor,
    [0, 255] becomes [−1, 1], as for ViT. Grey is repeated over the model's channels; images of
    another size than the model's are resized to it, without the crop some processors make.
    """

    def __init__(self, config: Any, processor: Mapping[str, Any]) -> None:
        self._channels = int(getattr(config, "num_channels", 3))
        size = getattr(config, "image_size", None)
        self._size = tuple(size) if isinstance(size, list | tuple) else (size, size)
        self._resample = int(processor.get("resample", 2))
        normalised = processor.get("do_normalize", True)
        self._factor = (
            processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
        )
        self._mean = np.float32(processor.get("image_mean", 0.5) if normalised else 0.0)
        self._std = np.float32(processor.get("image_std", 0.5) if normalised else 1.0)

    def encode(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """`pixel_values` float32 [channels, height, width] and labels."""
        return [
            {"pixel_values": self._pixels(example.inputs), "labels": example.label}
            for example in examples
        ]

    def collate(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Stack."""
        return {
            "pixel_values": torch.stack([features["pixel_values"] for features in encoded]),
            "labels": torch.tensor([features["labels"] for features in encoded]),
        }

    def _pixels(self, image: Any) -> torch.Tensor:
        if self._size != image.shape[:2] and None not in self._size:
            from PIL import Image

            image = np.asarray(
                Image.fromarray(image).resize(self._size[::-1], Image.Resampling(self._resample))
            )
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], self._channels, axis=2)
        elif self._channels == 1:
            image = image.mean(axis=2, keepdims=True)
        scaled = (image.astype(np.float32) * np.float32(self._factor) - self._mean) / self._std
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def _first_subwords(words: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    """A tag at the first sub-word of each token, `IGNORED` elsewhere."""
    labels = []
    before = None
    for word in words:
        labels.append(tags[word] if word is not None and word != before else IGNORED)
        before = word
    return labels


def _tokenizer(checkpoint: Checkpoint, config: Any) -> Any:
    from transformers import AutoTokenizer

    where = str(checkpoint.path)
    fix = "Put the tokenizer's files (tokenizer.json) beside the weights."
    if not any(file.name.startswith(_VOCABULARIES) for file in checkpoint.companions):
        # Asked of transformers, this would give a tokenizer with an empty vocabulary.
        raise AlliageError(Problem(where, "no tokenizer in it.", fix))
    options = {"add_prefix_space": True} if config.model_type in _PREFIX_SPACE else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, config=config, **options)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        what = f"its tokenizer does not load: {str(error).splitlines()[0]}"
        raise AlliageError(Problem(where, what, fix)) from None
    if not tokenizer.is_fast:
        raise AlliageError(
            Problem(where, "its tokenizer has no fast form, which aligning tags needs.")
        )
    if tokenizer.pad_token is None:  # decoders
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _limit(config: Any, max_length: int | None) -> int:
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    if config.model_type in _SHIFTED_POSITIONS:
        positions -= config.pad_token_id + 1
    return min(positions, max_length or positions)


def _processor(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.folder is None:
        return {}
    path = checkpoint.folder / "preprocessor_config.json"
    return read_json(path) if path.is_file() else {}
