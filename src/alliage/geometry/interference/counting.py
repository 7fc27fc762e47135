"""Who keeps which parameters, and with which signs: arrays in, counts out.

An entry of a task vector is kept where its magnitude survives trimming. Zeros have no sign and are
never kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

# Up to so many models, blocks are reduced to how often each pattern of signs occurs: 3¹⁰ = 59,049.
MOST_TALLIED = 10
_COLUMNS = 1 << 14  # patterns looked at together


class SignCounts(NamedTuple):
    """Counts over parameters, for n models and s subsets of them; those of several blocks add up.

    All int64, but for `expected`.

    Attributes:
        parameters: [], all that were looked at.
        both: [n, n], parameters that both models keep; on the diagonal, that the model keeps.
        opposed: [n, n], those of them with opposite signs.
        influential: [n + 1], parameters that exactly 0, 1, … n models keep.
        shared: [s], parameters that two or more models of the subset keep.
        conflicting: [s], those of them whose signs are not all the same.
        expected: [s], float64, how many would be if signs were drawn at random: a parameter that c
            models keep conflicts with probability 1 − 2^(1−c).
    """

    parameters: NDArray[Any]
    both: NDArray[Any]
    opposed: NDArray[Any]
    influential: NDArray[Any]
    shared: NDArray[Any]
    conflicting: NDArray[Any]
    expected: NDArray[Any]

    def plus(self, other: SignCounts) -> SignCounts:
        """Of both."""
        return SignCounts(*(a + b for a, b in zip(self, other, strict=True)))


def kept_signs(
    deltas: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> Iterator[NDArray[np.int8]]:
    """The signs of what trimming keeps, 0 for the rest, at one share after the other.

    Args:
        deltas: [n, m].
        thresholds: [shares, n], the smallest magnitudes that models keep.

    Returns:
        for each share [n, m]: −1, 0 or 1.
    """
    magnitudes = np.abs(deltas)
    signs = (deltas > 0).view(np.int8) - (deltas < 0).view(np.int8)
    for limits in thresholds:
        yield signs * (magnitudes >= limits[:, None])


class SignTally:
    """`SignCounts` of many blocks.

    Of few models it only remembers how often each pattern of signs occurs and counts at the end:
    what a block costs then hardly depends on the subsets.
    """

    def __init__(self, models: int, subsets: NDArray[np.bool_]) -> None:
        """Count for `models` and `subsets` of them, [s, n]."""
        self._subsets = subsets
        self._counts = _count(np.zeros((models, 0), np.int8), np.zeros(0, np.int64), subsets)
        few = models <= MOST_TALLIED
        self._times = np.zeros(3**models, np.int64) if few else None

    def add(self, signs: NDArray[np.int8]) -> None:
        """Count a block [n, m] of −1, 0 and 1."""
        if self._times is None:
            ones = np.ones(signs.shape[1], np.int64)
            self._counts = self._counts.plus(_count(signs, ones, self._subsets))
            return
        codes = np.zeros(signs.shape[1], np.int32)
        for row in signs:
            codes *= 3
            codes += row
        codes += len(self._times) // 2  # from 0: all signs negative
        self._times += np.bincount(codes, minlength=len(self._times))

    def add_times(self, times: NDArray[np.int64]) -> None:
        """Count how often each pattern of signs occurred, [3ⁿ]; for up to `MOST_TALLIED` models.

        A pattern's place is Σ (sₖ + 1)·3ⁿ⁻ᵏ of its signs s₁ … sₙ.
        """
        assert self._times is not None
        self._times += times

    def absorb(self, other: Self) -> None:
        """Add what another tally of the same models and subsets has seen."""
        self._counts = self._counts.plus(other._counts)
        if self._times is not None:
            assert other._times is not None
            self._times += other._times

    def counts(self) -> SignCounts:
        """Of all blocks."""
        if self._times is None:
            return self._counts
        seen = np.flatnonzero(self._times)
        patterns = _patterns(self._subsets.shape[1])[:, seen]
        return _count(patterns, self._times[seen], self._subsets)


@lru_cache(maxsize=2)
def _patterns(models: int) -> NDArray[np.int8]:
    """All patterns of signs [n, 3ⁿ] in the order of their codes."""
    return np.array(list(itertools.product((-1, 0, 1), repeat=models)), np.int8).T


def _count(
    signs: NDArray[np.int8], times: NDArray[np.int64], subsets: NDArray[np.bool_]
) -> SignCounts:
    """Counts of columns [n, u], each `times` [u]. Products in float64 are exact below 2⁵³."""
    models = len(signs)
    members = subsets.astype(np.float32)
    both, opposed = np.zeros((2, models, models))
    influential = np.zeros(models + 1)
    shared, conflicting = np.zeros((2, len(subsets)))
    expected = np.zeros(len(subsets))
    chances = np.array([0.0, *(1 - 2.0 ** (1 - c) for c in range(1, models + 1))])
    for start in range(0, signs.shape[1], _COLUMNS):
        part, weights = signs[:, start : start + _COLUMNS], times[start : start + _COLUMNS]
        up, down = (part > 0).astype(np.float32), (part < 0).astype(np.float32)
        keep = up + down
        both += (keep * weights) @ keep.T.astype(np.float64)
        across = (up * weights) @ down.T.astype(np.float64)
        opposed += across + across.T
        influential += np.bincount(keep.sum(axis=0).astype(np.intp), weights, models + 1)
        several = keep.sum(axis=0) > 1  # only they can conflict
        up, down, weights = up[:, several], down[:, several], weights[several]
        ups, downs = members @ up, members @ down
        shared += (ups + downs > 1) @ weights.astype(np.float64)
        conflicting += ((ups > 0) & (downs > 0)) @ weights.astype(np.float64)
        expected += chances[(ups + downs).astype(np.intp)] @ weights.astype(np.float64)
    whole = (a.astype(np.int64) for a in (both, opposed, influential, shared, conflicting))
    return SignCounts(*(np.asarray(times.sum()), *whole, expected))


def choose_subsets(models: int, most: int, seed: int) -> NDArray[np.bool_]:
    """Subsets of 2, 3, … all models, [s, n], by size: all of a size, or a sample of `most`."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, ...]] = []
    for size in range(2, models + 1):
        if math.comb(models, size) <= most:
            rows += itertools.combinations(range(models), size)
            continue
        drawn: set[tuple[int, ...]] = set()
        while len(drawn) < most:
            drawn.add(tuple(sorted(random.permutation(models)[:size].tolist())))
        rows += sorted(drawn)
    subsets = np.zeros((len(rows), models), np.bool_)
    for subset, row in zip(subsets, rows, strict=True):
        subset[list(row)] = True
    return subsets
