"""The k-th largest magnitude of a vector that does not fit into memory, exactly.

The magnitude of a float32 is ordered like its bit pattern without the sign, an integer below 2³¹.
A bracket of patterns around the wanted rank is taken from a sample; one pass counts what lies
below the bracket and makes a histogram inside it. With one bin for each pattern the rank is found
exactly; where the bracket has more patterns than bins, or the sample misled, the bracket moves and
another pass follows. Memory is the histogram, whatever the size of the vector.
"""

from __future__ import annotations

import copy
import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Kept = Literal["threshold", "kth", "count", "count_or_one"]

BINS = 1 << 20  # of a search: 8 MiB
_PATTERNS = 0x7F800001  # of all magnitudes up to infinity
_ERRORS = 6  # standard errors of the sampled rank, on each side of it
_LEAST_MARGIN = 2e-4  # of all ranks


def trim_rank(numel: int, density: float, kept: Kept) -> int:
    """The rank, from 1, of the smallest magnitude kept; 0 where all are, numel + 1 where none is.

    "threshold" is the convention of arXiv:2306.01708's code, the (d − ⌊dK⌋)-th smallest: with it
    and its equals ⌊dK⌋ + 1 entries or more stay. "kth" is sd-mecha's, the ⌊d(1 − K)⌋-th smallest,
    "count" keeps exactly ⌊dK⌋ entries, "count_or_one" one at least.
    """
    if kept in ("count", "count_or_one"):
        least = int(kept == "count_or_one")
        return numel - max(least, int(numel * density)) + 1 if density < 1 else 0
    if kept == "kth":
        return max(1, int((1 - density) * numel)) if density < 1 else 0
    return numel - int(numel * density)


def magnitude_thresholds(vectors: Tensor, ranks: list[int]) -> Tensor:
    """The magnitudes of given ranks.

    Args:
        vectors: [n, d], float32.
        ranks: for each vector, counted from 1 for the smallest; 0 gives 0, d + 1 infinity.

    Returns:
        [n], the smallest magnitudes that trimming keeps.
    """
    import torch

    magnitudes = vectors.abs()
    found = [
        magnitudes[row].kthvalue(rank).values.item()
        if 0 < rank <= vectors.shape[1]
        else (0.0 if rank == 0 else math.inf)
        for row, rank in enumerate(ranks)
    ]
    return torch.tensor(found, dtype=torch.float32, device=vectors.device)


@dataclass
class Search:
    """One vector's bracket [low, high) of bit patterns, and what a pass counted for it.

    Attributes:
        rank: of the wanted magnitude, from 1; 0 is below all, numel + 1 above all.
        numel: entries of the vector.
        low: where `found`, the wanted pattern.
        middle: the pattern in the bracket that is most likely the wanted one. It is counted apart:
            between bfloat16 models differences are few, and many entries are equal to it.
        equal, to_keep: where `found`, entries equal to it, and how many of them have this rank
            or a higher one.
    """

    rank: int
    numel: int
    low: int = 0
    high: int = _PATTERNS
    middle: int = 0
    found: bool = False
    equal: int = 0
    to_keep: int = 0
    below: int = 0
    shift: int = 0  # a bin holds 2^shift patterns
    less: int = 0
    same: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        if 0 < self.rank <= self.numel:
            self.place(self.low, self.high)
        else:
            self.low, self.found = (0 if self.rank == 0 else _PATTERNS - 1), True

    @property
    def seen(self) -> bool:
        """Whether entries were counted, or a sample placed the bracket: the first one has all."""
        return self.high - self.low < _PATTERNS or bool(self.counts.any())

    def place(self, low: int, high: int, middle: int | None = None) -> None:
        """Move the bracket and forget the counts."""
        self.low, self.high, self.below = low, high, 0
        self.middle = low if middle is None else middle
        self.less = self.same = 0
        self.shift = max(0, math.ceil(math.log2((high - low) / BINS)))
        self.counts = np.zeros(((high - low - 1) >> self.shift) + 1, np.int64)

    def place_by(self, slices: list[NDArray[np.uint32]]) -> None:
        """Put the bracket around the rank that sampled slices suggest; all entries tell it.

        Neighbours vary together, so the error is that of the slices' means, not of their entries;
        slices at even distances follow trends, so it is taken from successive differences (Wolter
        2007, estimator v2).
        """
        ordered = np.sort(np.concatenate(slices))
        if len(ordered) == self.numel:
            pattern = ordered[self.rank - 1]
            first, upto = (int(np.searchsorted(ordered, pattern, s)) for s in ("left", "right"))
            self._find(int(pattern), upto, upto - first)
            return
        share, last = self.rank / self.numel, len(ordered) - 1
        middle = ordered[round(share * last)]
        steps = np.diff([float((values <= middle).mean()) for values in slices])
        error = math.sqrt(float((steps**2).mean()) / (2 * len(slices))) if len(steps) else 1.0
        margin = max(_ERRORS * error, _LEAST_MARGIN)
        low = max(0, math.floor((share - margin) * last))
        high = min(last, math.ceil((share + margin) * last))
        self.place(int(ordered[low]), int(ordered[high]) + 1, int(middle))

    def add(self, below: int, less: int, same: int, inside: NDArray[np.uint32]) -> None:
        """Count patterns.

        Args:
            below: how many lie below the bracket.
            less: how many lie below its middle.
            same: how many are its middle.
            inside: the others in the bracket.
        """
        bins = (inside - np.uint32(self.low)) >> np.uint32(self.shift)
        with self._lock:
            self.below += below
            self.less += less
            self.same += same
            self.counts[(self.middle - self.low) >> self.shift] += same
            np.add.at(self.counts, bins, 1)

    def add_sorted(self, patterns: NDArray[np.uint32]) -> None:
        """Count a block's patterns, sorted: one sorting serves the searches of many ranks."""
        edges = np.array([self.low, self.middle, self.middle + 1, self.high], np.uint32)
        low, first, after, high = (int(place) for place in np.searchsorted(patterns, edges))
        inside = np.concatenate([patterns[low:first], patterns[after:high]])
        self.add(low, first, after - first, inside)

    def fork(self) -> Self:
        """The same bracket with nothing counted."""
        twin = copy.copy(self)
        if not self.found:
            twin.place(self.low, self.high, self.middle)
        return twin

    def absorb(self, other: Self) -> None:
        """Add what a fork has counted."""
        self.below += other.below
        self.less += other.less
        self.same += other.same
        self.counts += other.counts

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key != "_lock"}
        filled = np.flatnonzero(self.counts)  # few bins are, of a small share of the blocks
        state["counts"] = (len(self.counts), filled, self.counts[filled])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        bins, filled, counts = state["counts"]
        self.counts = np.zeros(bins, np.int64)
        self.counts[filled] = counts
        self._lock = threading.Lock()

    def narrow(self) -> None:
        """Find the pattern of the rank, or move the bracket closer to it."""
        if self.less < self.rank <= self.less + self.same:
            self._find(self.middle, self.less + self.same, self.same)
            return
        upto = self.below + np.cumsum(self.counts)
        if self.rank <= self.below:
            self.place(0, self.low)
            return
        if self.rank > upto[-1]:
            self.place(self.high, _PATTERNS)
            return
        position = int(np.searchsorted(upto, self.rank))
        low = self.low + (position << self.shift)
        if self.shift:
            self.place(low, min(low + (1 << self.shift), self.high))
            return
        self._find(low, int(upto[position]), int(self.counts[position]))

    def _find(self, pattern: int, upto: int, equal: int) -> None:
        """Note the pattern, how many patterns are not above it, and how many are equal to it."""
        self.low, self.found = pattern, True
        self.equal, self.to_keep = equal, upto - self.rank + 1
        self.counts = np.zeros(0, np.int64)


def bit_patterns(values: Tensor) -> Tensor:
    """The bits of float32 magnitudes as integers, int32, which have the same order."""
    import torch

    return values.abs().contiguous().view(torch.int32)
