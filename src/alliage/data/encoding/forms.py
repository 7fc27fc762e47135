"""What all encoders share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from alliage.data.task import Example

IGNORED = -100  # a token without a label: torch's cross entropy passes over it
AT_ONCE = 1000  # examples in one call of the tokenizer, which keeps more than the ids

Features = dict[str, Any]


class Encoder(Protocol):
    """Prepares the examples of one model.

    Attributes:
        truncated: how many of the examples encoded so far were cut at the longest length.
    """

    truncated: int

    def encode(self, examples: Sequence[Example]) -> list[Features]:
        """The model's inputs and "labels" of each example; no labels where they are hidden."""

    def collate(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch of encoded examples."""


def padded(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> torch.Tensor:
    """Rows of integers as one tensor [n, longest], filled up with a value at one side."""
    width = max(map(len, rows))
    return torch.tensor(
        [
            [value] * (width - len(row)) + list(row)
            if left
            else list(row) + [value] * (width - len(row))
            for row in rows
        ]
    )
