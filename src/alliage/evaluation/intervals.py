"""How far a score may be off by chance, and whether two models differ. Pure: tallies in.

Examples are what is drawn again: of token tasks whole sentences, whose tokens are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from alliage.evaluation.tally import Floats, Tally

LEVEL = 0.95
RESAMPLES = 2000  # fewer of many examples, whose intervals are narrow
_DRAWS = 100_000_000  # examples drawn in all
_CELLS = 4_000_000  # counts held at once: resamples in one go times examples
_ROWS = 4096  # examples left out at once


class Interval(NamedTuple):
    """Where a metric lies with a given confidence.

    Attributes:
        low, high: its ends.
        method: "bca", "percentile" or "exact".
    """

    low: float
    high: float
    method: str

    def __str__(self) -> str:
        return f"[{self.low:.4f}, {self.high:.4f}]"


class Difference(NamedTuple):
    """A model's metric minus a reference's, on the same examples.

    Attributes:
        value: the difference.
        low, high: percentile interval of it; NaN where no resample has another difference.
        p: two-sided probability of one at least as large if the models were alike.
        test: how p was found: "mcnemar", "randomisation" or "bootstrap".
    """

    value: float
    low: float
    high: float
    p: float
    test: str


def intervals(
    tally: Tally, *, level: float = LEVEL, resamples: int | None = None, seed: int = 0
) -> dict[str, Interval]:
    """Bootstrap intervals of every metric of a tally, by example.

    BCa (bias-corrected and accelerated; Efron, 1987), as scipy's, or the percentile interval where
    the metric lies outside all resamples. Where its two ends are the same, the examples do not
    tell, and the metric is left out.

    Args:
        tally: of n examples.
        level: of confidence, in (0, 1).
        resamples: how many; by default `RESAMPLES`, of more than 50,000 examples fewer.
        seed: of the draws, which are the same for every tally of n examples.
    """
    drawn = tally.of(_resampled(tally, _enough(len(tally), resamples), seed))
    without = _jackknife(tally)
    return _open(
        {
            name: _bca(drawn[name], value, without[name], level)
            for name, value in tally.values().items()
        }
    )


def whole_intervals(
    size: int,
    metrics: Mapping[str, Callable[[NDArray[np.int64]], float]],
    *,
    level: float = LEVEL,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of metrics that are no functions of sums, such as Spearman's.

    Args:
        size: examples.
        metrics: name -> the metric of the examples at given indices.
        level: as of `intervals`.
        resamples: the same.
        seed: the same.
    """
    drawn = _whole(size, metrics, _enough(size, resamples), seed)
    return _open({name: _percentile(values, level) for name, values in drawn.items()})


def exact_interval(right: ArrayLike, *, level: float = LEVEL) -> Interval:
    """Clopper and Pearson's interval (1934) of a share of independent decisions.

    Args:
        right: [n], whether each was.
        level: of confidence, in (0, 1).
    """
    decisions = np.asarray(right, bool)
    found = stats.binomtest(int(decisions.sum()), decisions.size)
    low, high = found.proportion_ci(level, method="exact")
    return Interval(float(low), float(high), "exact")


def differences(
    tally: Tally,
    reference: Tally,
    *,
    level: float = LEVEL,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Difference]:
    """Every metric that both tallies have, one minus the other's.

    The interval is of a paired bootstrap: both models are scored on the examples drawn. p is of
    approximate randomisation (Noreen, 1989): the answers of the two models to an example change
    sides at random, (1 + differences at least as large) / (1 + resamples).

    Args:
        tally: of a model.
        reference: of another, on the same examples in the same order.
        level: as of `intervals`.
        resamples: the same.
        seed: the same.

    Raises:
        ValueError: other numbers of examples.
    """
    if len(tally) != len(reference):
        raise ValueError(f"{len(tally)} examples cannot be paired with {len(reference)}.")
    resamples = _enough(len(tally), resamples)
    first, second = tally.values(), reference.values()
    shared = [name for name in first if name in second]
    own = tally.of(_resampled(tally, resamples, seed))
    other = reference.of(_resampled(reference, resamples, seed))
    swapped = _swapped(tally, reference, resamples, seed)
    found = {}
    for name in shared:
        value = first[name] - second[name]
        low, high = _ends(own[name] - other[name], level)
        # A difference as large as the one seen must count, whatever the order of the additions.
        at_least = np.abs(swapped[name]) >= abs(value) * (1 - 1e-9)
        p = (1 + int(at_least.sum())) / (1 + resamples)
        found[name] = Difference(value, low, high, p, "randomisation")
    return found


def whole_differences(
    size: int,
    metrics: Mapping[str, Callable[[NDArray[np.int64]], float]],
    reference: Mapping[str, Callable[[NDArray[np.int64]], float]],
    *,
    level: float = LEVEL,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Difference]:
    """As `differences` for metrics that are no functions of sums.

    p is of the paired bootstrap: twice the share of resamples on the rarer side of no difference.
    """
    shared = [name for name in metrics if name in reference]
    resamples = _enough(size, resamples)
    everything = np.arange(size)
    own = _whole(size, {name: metrics[name] for name in shared}, resamples, seed)
    other = _whole(size, {name: reference[name] for name in shared}, resamples, seed)
    found = {}
    for name in shared:
        drawn = own[name] - other[name]
        low, high = _ends(drawn, level)
        side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        p = min(1.0, 2 * (1 + side) / (1 + resamples))
        value = metrics[name](everything) - reference[name](everything)
        found[name] = Difference(value, low, high, p, "bootstrap")
    return found


def exchange_p(
    size: int,
    difference: Callable[[NDArray[np.bool_]], float],
    *,
    resamples: int | None = None,
    seed: int = 0,
) -> float:
    """The p of approximate randomisation (Noreen, 1989), for any metric.

    Args:
        size: number of examples.
        difference: of the metric between two models, after their answers to the examples marked
            in [size] changed sides.
        resamples: draws; as of `intervals` by default.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    resamples = _enough(size, resamples)
    seen = abs(difference(np.zeros(size, bool))) * (1 - 1e-9)
    drawn = (difference(generator.integers(2, size=size).astype(bool)) for _ in range(resamples))
    return (1 + sum(abs(each) >= seen for each in drawn)) / (1 + resamples)


def mcnemar(right: ArrayLike, reference: ArrayLike) -> float:
    """Exact McNemar test: whether two models are right equally often where they differ.

    Args:
        right: [n], whether a model answered right.
        reference: [n], whether the other did.

    Returns:
        the two-sided p; 1 where both answer the same ones right.
    """
    first, second = np.asarray(right, bool), np.asarray(reference, bool)
    only, other = int((first & ~second).sum()), int((second & ~first).sum())
    if not only + other:
        return 1.0
    return float(stats.binomtest(only, only + other).pvalue)


def _enough(size: int, resamples: int | None) -> int:
    return resamples or min(RESAMPLES, max(200, _DRAWS // size))


def _counts(size: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each example is drawn, [some resamples, examples] at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS // size)
    for start in range(0, resamples, at_once):
        height = min(at_once, resamples - start)
        drawn = generator.integers(size, size=(height, size))
        drawn += size * np.arange(height)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=height * size)
        yield counts.reshape(height, size).astype(np.float64)


def _resampled(tally: Tally, resamples: int, seed: int) -> Floats:
    """Sums of each resample, [resamples, columns]."""
    parts = [counts @ tally.rows for counts in _counts(len(tally), resamples, seed)]
    return np.concatenate(parts)


def _whole(
    size: int,
    metrics: Mapping[str, Callable[[NDArray[np.int64]], float]],
    resamples: int,
    seed: int,
) -> dict[str, Floats]:
    generator = np.random.default_rng(seed)
    drawn = [generator.integers(size, size=size) for _ in range(resamples)]
    return {
        name: np.array([metric(indices) for indices in drawn]) for name, metric in metrics.items()
    }


def _swapped(tally: Tally, reference: Tally, resamples: int, seed: int) -> dict[str, Floats]:
    """Differences of every shared metric when answers change sides at random, [resamples]."""
    generator = np.random.default_rng(seed)
    first, second = tally.sums, reference.sums
    gap = reference.rows - tally.rows
    at_once = max(1, _CELLS // len(tally))
    parts = []
    for start in range(0, resamples, at_once):
        shape = (min(at_once, resamples - start), len(tally))
        moved = generator.integers(2, size=shape).astype(np.float64) @ gap
        own, other = tally.of(first + moved), reference.of(second - moved)
        parts.append({name: own[name] - other[name] for name in own if name in other})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _jackknife(tally: Tally) -> dict[str, Floats]:
    """Every metric without each example, [examples]."""
    sums = tally.sums
    parts = [
        tally.of(sums - tally.rows[start : start + _ROWS].toarray())
        for start in range(0, len(tally), _ROWS)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in tally.metrics}


def _open(found: Mapping[str, Interval]) -> dict[str, Interval]:
    return {name: interval for name, interval in found.items() if interval.low < interval.high}


def _ends(drawn: Floats, level: float) -> tuple[float, float]:
    low, high, _ = _percentile(drawn, level)
    return (low, high) if low < high else (math.nan, math.nan)


def _percentile(drawn: Floats, level: float) -> Interval:
    drawn = drawn[np.isfinite(drawn)]  # a correlation of examples that are all alike is none
    if not drawn.size:
        return Interval(math.nan, math.nan, "percentile")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), "percentile")


def _bca(drawn: Floats, value: float, without: Floats, level: float) -> Interval:
    """Efron and Tibshirani, An Introduction to the Bootstrap, equations 14.9 to 14.15."""
    share = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    influence = without.mean() - without
    spread = (influence**2).sum()
    if not 0 < share < 1 or not spread > 0 or not np.isfinite(drawn).all():
        return _percentile(drawn, level)
    bias = stats.norm.ppf(share)
    acceleration = (influence**3).sum() / (6 * spread**1.5)
    normal = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    levels = stats.norm.cdf(bias + normal / (1 - acceleration * normal))
    low, high = np.quantile(drawn, levels)
    return Interval(float(low), float(high), "bca")
