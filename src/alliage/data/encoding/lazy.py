"""Encoding when the training loop asks: data sets whose encoded form would not fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from alliage.data.encoding.forms import Encoder, Features
from alliage.data.encoding.images import ImageEncoder
from alliage.data.task import Example

_AT_ONCE = 2**28  # bytes of pixels that are encoded together


def encoded(encoder: Encoder, examples: Sequence[Example]) -> Sequence[Features]:
    """Features of examples: a list, or a lazy sequence where the list may not fit in memory.

    Lazy are splits that are read from disk as they are indexed, and images beyond 256 MiB of
    pixels. A lazy sequence encodes again at each access; torch's loader takes a whole batch of it
    in one call.
    """
    too_many = not isinstance(examples, tuple | list) or (
        isinstance(encoder, ImageEncoder)
        and sum(encoder.bytes_of(example) for example in examples) > _AT_ONCE
    )
    return _Lazy(encoder, examples) if too_many else encoder.encode(examples)


def lengths(features: Sequence[Features]) -> list[int]:
    """How long each example is, for batches of like length.

    In tokens; of what is encoded lazily in characters, which puts them in much the same order
    without a pass through the tokenizer.
    """
    if isinstance(features, _Lazy):
        return [_characters(example) for example in features.examples]
    return [len(row.get("input_ids", ())) for row in features]


def _characters(example: Example) -> int:
    texts = [*example.inputs, example.label] if isinstance(example.inputs, tuple) else []
    return sum(len(text) for text in texts if isinstance(text, str))


class _Lazy(Sequence[Features]):
    """Features that are made when asked for."""

    def __init__(self, encoder: Encoder, examples: Sequence[Example]) -> None:
        self.examples = examples
        self._encoder = encoder
        self._seen = bytearray(len(examples))

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Features: ...
    @overload
    def __getitem__(self, index: slice) -> list[Features]: ...
    def __getitem__(self, index: int | slice) -> Features | list[Features]:
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Features]:
        """Several at once, as torch's loader asks for a batch."""
        new = [index for index in dict.fromkeys(indices) if not self._seen[index]]
        rows = dict(zip(new, self._encode(new), strict=True))
        counted = self._encoder.truncated  # an example is counted once, not per epoch
        again = [index for index in dict.fromkeys(indices) if index not in rows]
        rows |= zip(again, self._encode(again), strict=True)
        self._encoder.truncated = counted
        for index in new:
            self._seen[index] = 1
        return [dict(rows[index]) for index in indices]

    def _encode(self, indices: Sequence[int]) -> list[Features]:
        return self._encoder.encode([self.examples[index] for index in indices])
