"""Non-metric scaling, and how well a map keeps the distances that it was made of."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from alliage.geometry.mapping.maps import (
    Embedding,
    checked_distances,
    classical_mds,
    principal_components,
    turned,
)

Array = npt.NDArray[np.float64]

_STARTS = 6  # random ones, beside classical scaling and principal components
# Steps, and what part of the squared stress ten of them must take off for more to follow.
_TRIAL, _POLISH = (150, 1e-2), (1000, 1e-4)


def nonmetric_mds(distances: npt.ArrayLike, axes: int = 2, *, seed: int = 0) -> Embedding:
    """Non-metric multidimensional scaling (Kruskal 1964): only the order of the distances counts.

    Minimises `stress` by majorisation (SMACOF; de Leeuw 1977) with monotone regression between the
    steps, from several starts, of which the best is kept: classical scaling, principal components,
    and random ones. Where the data leave a choice (models in a few tight groups, or less than about
    four models), stress is near 0 whatever the map: see `classical_mds` too.

    Args:
        distances: [n, n], symmetric, zero on the diagonal.
        axes: of the map.
        seed: of the random starts.

    Returns:
        coordinates turned to their own principal axes, and scaled so that distances on the map are
        as near as may be to these; `explained` are shares of the map's own variance, which add up
        to 1.
    """
    matrix = checked_distances(distances)
    n = len(matrix)
    given = squareform(matrix, checks=False)
    random = np.random.default_rng(seed)
    starts = [method(matrix, axes).coordinates for method in (classical_mds, principal_components)]
    starts += [random.standard_normal((n, axes)) for _ in range(_STARTS if n > 3 else 0)]
    best, least = starts[0], math.inf
    for start in starts:
        found = _majorised(given, start, *_TRIAL)
        value = stress(matrix, found)
        # Starts that end alike differ by rounding: the first of them stands.
        if value < least - 1e-9 or least == math.inf:
            best, least = found, value
    best = _majorised(given, best, *_POLISH)
    apart = pdist(best)
    squares = float(apart @ apart)
    fitted = best * (float(given @ apart) / squares if squares else 0.0)
    u, singular, _ = np.linalg.svd(fitted - fitted.mean(axis=0), full_matrices=False)
    return turned(u * singular, singular**2, axes)


def stress(distances: npt.ArrayLike, coordinates: npt.ArrayLike) -> float:
    """Kruskal's stress-1: √(Σ(d − d̂)² / Σd²), d on the map and d̂ their monotone regression.

    0 where the order of the distances on the map is that of those given; pairs that are equally far
    apart may be in any order (the primary approach to ties). Kruskal calls 0.2 poor, 0.1 fair, 0.05
    good; random points reach less the fewer they are. Other authors take d̂ for the distances as
    given: the two agree only up to a monotone change of scale.

    Args:
        distances: [n, n], symmetric.
        coordinates: [n, axes].

    Returns:
        from 0 to 1; NaN where all points coincide or there are less than two.
    """
    given = squareform(checked_distances(distances), checks=False)
    apart = pdist(np.asarray(coordinates, dtype=np.float64))
    squares = float(apart @ apart)
    if not squares:
        return math.nan
    return math.sqrt(float(((apart - _monotone(given, apart)) ** 2).sum()) / squares)


def rank_agreement(distances: npt.ArrayLike, coordinates: npt.ArrayLike) -> float:
    """Spearman's rank correlation of distances on a map with those that it was made of.

    Args:
        distances: [n, n], symmetric.
        coordinates: [n, axes].

    Returns:
        from −1 to 1; NaN below three models, and where all distances of either kind are equal.
    """
    given = squareform(checked_distances(distances), checks=False)
    apart = pdist(np.asarray(coordinates, dtype=np.float64))
    # Equal distances differ by rounding on the map, which must not make an order.
    unit = np.abs(apart).max(initial=0.0) or 1.0
    ranks = [rankdata(given), rankdata(np.round(apart / unit, 9))]
    if len(given) < 2 or any(np.ptp(one) == 0 for one in ranks):
        return math.nan
    return float(np.corrcoef(ranks)[0, 1])


def is_collapsed(coordinates: npt.ArrayLike) -> bool:
    """Whether points of four or more nearly coincide: what non-metric scaling makes of groups.

    Where some distances are all below all others, the order is kept perfectly by no distances
    within groups (Kruskal's degenerate solution).
    """
    apart = pdist(np.asarray(coordinates, dtype=np.float64))
    return bool(len(apart) > 5 and apart.min() < 1e-2 * apart.max())


def _monotone(given: Array, apart: Array) -> Array:
    """The values nearest to `apart` that never fall as `given` rises."""
    order = np.lexsort((apart, given))
    fitted = np.empty_like(apart)
    fitted[order] = isotonic_regression(apart[order]).x
    return fitted


def _majorised(given: Array, start: Array, most: int, gain: float) -> Array:
    """Guttman's transform of the start, `most` times or until stress falls no more."""
    points, pairs, before = start, len(given), math.inf
    for step in range(most):
        apart = pdist(points)
        wanted = _monotone(given, apart)
        size = float(wanted @ wanted)
        if not size:
            break
        if step % 10 == 0:
            now = float(((apart - wanted) ** 2).sum() / max(float(apart @ apart), 1e-300))
            if now < 1e-12 or before - now < gain * now:
                break
            before = now
        wanted *= math.sqrt(pairs / size)
        ratios = squareform(np.divide(wanted, apart, out=np.zeros_like(apart), where=apart > 0))
        points = (ratios.sum(axis=1)[:, None] * points - ratios @ points) / len(points)
    return points
