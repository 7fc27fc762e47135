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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from alliage.merging.registry import PerBlock, Scope

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Kept = Literal["threshold", "kth", "count", "count_or_one"]

_PATTERNS = 0x7F800001  # of all magnitudes up to infinity
_BINS = 1 << 20  # 8 MiB for each model
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


class RankThresholds:
    """The magnitudes of given ranks, each of one of several vectors, as a first pass.

    The ranks are those of the vectors in turn: with more ranks than vectors, from the first again.
    Results are "thresholds", float32 for each rank, and, where exactly so many entries are wanted
    and equal ones would be too many, "quota" for each block: how many entries equal to each
    threshold it keeps, the first ones; −1 keeps all.
    """

    def __init__(self, ranks: Sequence[int], numel: int, *, exact: bool) -> None:
        """Search the entries of `ranks`, as `trim_rank` counts them, in vectors of `numel`."""
        self.searches = [Search(rank, numel) for rank in ranks]
        self.passes = 0  # over all blocks, complete
        self._exact = exact
        self._samples: list[NDArray[np.uint32]] = []
        self._lock = threading.Lock()
        self._counting = False
        self._equals: dict[int, list[int]] = {}  # place -> of each rank, while counting

    @staticmethod
    def memory(models: int, sampled: int) -> int:
        """Bytes of the histograms, and of samples with `sampled` entries for each rank."""
        return models * (8 * _BINS + 4 * sampled) + 4 * sampled

    def sample(self, tensors: Tensor) -> None:
        """Take slices [n, m] of the vectors for the first bracket."""
        self.sample_patterns(_patterns(tensors).cpu().numpy().view(np.uint32))

    def sample_patterns(self, patterns: NDArray[np.uint32]) -> None:
        """The same, from magnitudes' bit patterns."""
        with self._lock:
            self._samples.append(patterns)

    def update(self, tensors: Tensor, place: int, uniform: Tensor | None = None) -> None:  # noqa: ARG002
        """Count a block [n, m]; any thread may call it."""
        self.place_brackets()
        patterns = _patterns(tensors)
        if self._counting:
            self.add_equals(
                place,
                [
                    int((row == search.low).sum())
                    for row, search in zip(cycle(patterns), self.searches, strict=False)
                ],
            )
            return
        for row, search in zip(cycle(patterns), self.searches, strict=False):
            if not search.found:
                inside = row[(row >= search.low) & (row < search.high) & (row != search.middle)]
                below = int((row < search.low).sum())
                less = int((row < search.middle).sum())
                same = int((row == search.middle).sum())
                search.add(below, less, same, inside.cpu().numpy().view(np.uint32))

    @property
    def counting(self) -> bool:
        """Whether blocks are now searched for entries equal to the thresholds."""
        return self._counting

    def add_equals(self, place: int, equals: list[int]) -> None:
        """Note how many entries of a block are equal to each model's threshold."""
        with self._lock:
            self._equals[place] = equals

    def result(self) -> Mapping[str, Any] | None:
        """The thresholds and quotas, or None where another pass is needed."""
        if self._counting:
            return {"thresholds": self._thresholds(), "quota": self._quotas()}
        if self._samples:  # nothing but they was seen yet
            self.place_brackets()
            if not all(search.found for search in self.searches):
                return None
        if not all(search.found or search.seen for search in self.searches):
            return None
        self.passes += 1
        for search in self.searches:
            if not search.found:
                search.narrow()
        if not all(search.found for search in self.searches):
            return None
        if self._exact and any(s.to_keep < s.equal for s in self.searches):
            self._counting = True
            return None
        return {"thresholds": self._thresholds()}

    def fork(self) -> Self:
        """One to be pickled, that looks for the same and has seen nothing."""
        twin = copy.copy(self)
        twin._samples, twin._equals = [], {}
        twin.searches = [search.fork() for search in self.searches]
        return twin

    def absorb(self, other: Self) -> None:
        """Add what a fork has seen."""
        self._samples += other._samples
        self._equals |= other._equals
        for search, seen in zip(self.searches, other.searches, strict=True):
            search.absorb(seen)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._lock = threading.Lock()

    def place_brackets(self) -> None:
        """Set the first brackets from the samples; later calls find none left."""
        with self._lock:
            samples, self._samples = self._samples, []
            if not samples:
                return
            for number, search in enumerate(self.searches):
                if not search.found:
                    search.place_by([sample[number % len(sample)] for sample in samples])

    def _thresholds(self) -> list[float]:
        patterns = np.array([search.low for search in self.searches], np.uint32)
        return [float(value) for value in patterns.view(np.float32)]

    def _quotas(self) -> PerBlock:
        """What is left of each model's equals, block by block."""
        left = [s.to_keep if s.to_keep < s.equal else -1 for s in self.searches]
        quotas = PerBlock()
        for place in sorted(self._equals):
            equals = self._equals[place]
            quotas.append([q if q < 0 else min(q, e) for q, e in zip(left, equals, strict=True)])
            left = [q if q < 0 else q - min(q, e) for q, e in zip(left, equals, strict=True)]
        return quotas


class TrimThresholds(RankThresholds):
    """The thresholds of trimming as a first pass: over a whole model, a module or a tensor."""

    reads: ClassVar[tuple[str, ...]] = ("density", "kept", "trim")

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:
        """Search the thresholds of `models` vectors with `numel` entries each."""
        densities = np.broadcast_to(np.asarray(parameters["density"], np.float64), models)
        kept: Kept = parameters["kept"]
        ranks = [trim_rank(numel, float(density), kept) for density in densities]
        super().__init__(ranks, numel, exact=kept.startswith("count"))

    @staticmethod
    def scope(**parameters: Any) -> Scope:
        """What is trimmed as one vector."""
        scope: Scope = parameters["trim"]
        return scope

    @staticmethod
    def least_passes(**parameters: Any) -> int:
        """None where everything stays."""
        return int(np.min(parameters["density"]) < 1)


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
        self.shift = max(0, math.ceil(math.log2((high - low) / _BINS)))
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


def _patterns(values: Tensor) -> Tensor:
    import torch

    return values.abs().contiguous().view(torch.int32)
