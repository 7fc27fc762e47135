"""The k-th largest magnitude of a vector that does not fit into memory, exactly.

The magnitude of a float32 is ordered like its bit pattern without the sign, an integer below 2³¹.
A bracket of patterns around the wanted rank is taken from a sample; one pass counts what lies
below the bracket and makes a histogram inside it. With one bin for each pattern the rank is found
exactly; where the bracket has more patterns than bins, or the sample misled, the bracket moves and
another pass follows. Memory is the histogram, whatever the size of the vector.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_PATTERNS = 0x7F800001  # of all magnitudes up to infinity
_BINS = 1 << 20  # 8 MiB for each model
_MARGIN = 0.01  # of all ranks, on each side of the sample's: slices of neighbours vary together


def magnitude_thresholds(vectors: Tensor, density: float) -> Tensor:
    """The smallest magnitude that trimming keeps, for each of some vectors in memory.

    Args:
        vectors: [n, d], float32.
        density: K in (0, 1], the share of entries to keep.

    Returns:
        [n], the (d − ⌊dK⌋)-th smallest magnitude: with it and its equals, ⌊dK⌋ + 1 entries or more
        are kept (the convention of arXiv:2306.01708's code); 0 where ⌊dK⌋ = d, which keeps all.
    """
    rank = _rank(vectors.shape[1], density)
    if rank == 0:
        return torch.zeros(len(vectors))
    return vectors.abs().kthvalue(rank, dim=1).values


class WholeVectorThresholds:
    """`magnitude_thresholds` as a first pass over blocks."""

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:
        """Search the thresholds of `models` vectors with `numel` entries each."""
        self._rank = _rank(numel, parameters["density"])
        self._share = self._rank / max(numel, 1)
        self._searches = [_Search() for _ in range(models)]
        self._samples: list[Tensor] = []
        self._lock = threading.Lock()

    @classmethod
    def memory(cls, models: int, sampled: int) -> int:
        """Bytes of the histograms, and of samples with `sampled` entries for each model."""
        return models * (8 * _BINS + 4 * sampled) + 4 * sampled

    def sample(self, deltas: Tensor) -> None:
        """Take some slices [n, m] of the vectors for the first bracket."""
        self._samples.append(_patterns(deltas))

    def update(self, deltas: Tensor) -> None:
        """Count a block [n, m]; any thread may call it."""
        self._place_brackets()
        for search, patterns in zip(self._searches, _patterns(deltas), strict=True):
            if search.found:
                continue
            below, bins = search.sort_out(patterns)
            ones = torch.ones_like(bins)
            with self._lock:
                search.below += below
                search.counts.scatter_add_(0, bins, ones)

    def result(self) -> Mapping[str, Any] | None:
        """The thresholds {"thresholds": [n]}, or None where another pass is needed."""
        if self._rank == 0:
            return {"thresholds": torch.zeros(len(self._searches))}
        for search in self._searches:
            if not search.found:
                search.narrow(self._rank)
        if not all(search.found for search in self._searches):
            return None
        patterns = torch.tensor([search.low for search in self._searches], dtype=torch.int32)
        return {"thresholds": patterns.view(torch.float32)}

    def _place_brackets(self) -> None:
        """Set the first brackets from the samples; later calls find none left."""
        with self._lock:
            if not self._samples:
                return
            for model, search in enumerate(self._searches):
                ordered = torch.cat([sample[model] for sample in self._samples]).cpu().numpy()
                ordered.sort()
                last = len(ordered) - 1
                low = max(0, math.floor((self._share - _MARGIN) * last))
                high = min(last, math.ceil((self._share + _MARGIN) * last))
                search.place(int(ordered[low]), int(ordered[high]) + 1)
            self._samples = []


@dataclass
class _Search:
    """One vector's bracket [low, high) of bit patterns, and what a pass counted for it."""

    low: int = 0
    high: int = _PATTERNS
    found: bool = False  # `low` is the pattern
    below: int = 0
    shift: int = 0  # a bin holds 2^shift patterns
    counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        self.place(self.low, self.high)

    def place(self, low: int, high: int) -> None:
        """Move the bracket and forget the counts."""
        self.low, self.high, self.below = low, high, 0
        self.shift = max(0, math.ceil(math.log2((high - low) / _BINS)))
        self.counts = torch.zeros(((high - low - 1) >> self.shift) + 1, dtype=torch.int64)

    def sort_out(self, patterns: Tensor) -> tuple[int, Tensor]:
        """How many patterns lie below the bracket, and the bins of those inside it."""
        below = int((patterns < self.low).sum())
        inside = patterns[(patterns >= self.low) & (patterns < self.high)]
        return below, ((inside - self.low) >> self.shift).cpu().long()

    def narrow(self, rank: int) -> None:
        """Find the pattern of a rank, counted from 1, or move the bracket closer to it."""
        upto = self.below + self.counts.cumsum(0)
        if rank <= self.below:
            self.place(0, self.low)
            return
        if rank > int(upto[-1]):
            self.place(self.high, _PATTERNS)
            return
        low = self.low + (int(torch.searchsorted(upto, rank)) << self.shift)
        if self.shift == 0:
            self.low, self.found = low, True
        else:
            self.place(low, min(low + (1 << self.shift), self.high))


def _rank(numel: int, density: float) -> int:
    """The rank, from 1, of the smallest magnitude kept; 0 where all are."""
    return numel - int(numel * density)


def _patterns(values: Tensor) -> Tensor:
    return values.abs().contiguous().view(torch.int32)
