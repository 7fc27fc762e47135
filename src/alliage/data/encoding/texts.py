"""Texts, pairs of texts and tagged sentences as an encoder takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from alliage.data.encoding.forms import AT_ONCE, IGNORED, Features, padded
from alliage.data.task import Example, Kind


class TextEncoder:
    """Texts, pairs of texts, or sentences split into tokens, through a fast tokenizer.

    A tag belongs to the first sub-word of its token; the others are ignored. Where a tokenizer on
    bytes (of GPT-2, RoBERTa, BART, ...) marks the words of a text by the space before them, split
    words get that space, too.

    Attributes:
        truncated: how many of the examples encoded so far were cut at the longest length.
    """

    def __init__(self, tokenizer: Any, kind: Kind, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.truncated = 0
        self._by_token = kind == "token-classification"
        self._apart = " " if self._by_token and _is_on_bytes(tokenizer) else ""
        self._max_length = min(max_length, tokenizer.model_max_length)

    def encode(self, examples: Sequence[Example]) -> list[Features]:
        """Token ids (and what else the tokenizer gives) and labels; long texts are cut."""
        return [
            features
            for start in range(0, len(examples), AT_ONCE)
            for features in self._encode(examples[start : start + AT_ONCE])
        ]

    def _encode(self, examples: Sequence[Example]) -> list[Features]:
        inputs = [example.inputs for example in examples]
        texts: list[Any] = [
            [self._apart + token for token in tokens] if self._by_token else tokens[0]
            for tokens in inputs
        ]
        pairs = None if self._by_token or len(inputs[0]) == 1 else [pair[1] for pair in inputs]
        batch = self.tokenizer(
            texts, pairs, truncation=True, max_length=self._max_length,
            is_split_into_words=self._by_token,
        )  # fmt: skip
        self.truncated += sum(bool(encoding.overflowing) for encoding in batch.encodings)
        encoded = []
        for index, example in enumerate(examples):
            features = {name: values[index] for name, values in batch.items()}
            if example.label is not None:
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
        if "labels" in encoded[0]:
            labels = [features["labels"] for features in encoded]
            batch["labels"] = padded(labels, IGNORED) if self._by_token else torch.tensor(labels)
        return batch


def _is_on_bytes(tokenizer: Any) -> bool:
    """Whether words carry the space before them."""
    steps = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    return any(step["type"] == "ByteLevel" for step in steps.get("pretokenizers", [steps]) if step)


def _first_subwords(words: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    """A tag at the first sub-word of each token, `IGNORED` elsewhere."""
    labels = []
    before = None
    for word in words:
        labels.append(tags[word] if word is not None and word != before else IGNORED)
        before = word
    return labels
