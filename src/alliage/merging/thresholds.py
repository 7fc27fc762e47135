"""First passes that look for magnitudes of given ranks: the thresholds of trimming."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from alliage.merging.registry import PerBlock, Scope
from alliage.order_statistics import BINS, Kept, Search, bit_patterns, trim_rank

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


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
        return models * (8 * BINS + 4 * sampled) + 4 * sampled

    def sample(self, tensors: Tensor) -> None:
        """Take slices [n, m] of the vectors for the first bracket."""
        self.sample_patterns(bit_patterns(tensors).cpu().numpy().view(np.uint32))

    def sample_patterns(self, patterns: NDArray[np.uint32]) -> None:
        """The same, from magnitudes' bit patterns."""
        with self._lock:
            self._samples.append(patterns)

    def update(self, tensors: Tensor, place: int, uniform: Tensor | None = None) -> None:  # noqa: ARG002
        """Count a block [n, m]; any thread may call it."""
        self.place_brackets()
        patterns = bit_patterns(tensors)
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
