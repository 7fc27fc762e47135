"""Lower distance to calibration, by linear programming over the places that predictions move to."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from alliage.errors import AlliageError, Problem
from alliage.evaluation.calibration.checks import Binary, Floats, checked, levels

DISTINCT = 1000  # predictions up to which none is rounded
TOLERANCE = 1e-9
_ROUNDS = 50
_TOLERANCES = ("primal_feasibility_tolerance", "dual_feasibility_tolerance")


class _Solution(NamedTuple):
    """Least distance with predictions moving to some places only, and the prices that prove it.

    Attributes:
        value: of the distance.
        negative, positive: [places], what a unit of label 0 or 1 arriving there costs to bring.
    """

    value: float
    negative: Floats
    positive: Floats


def lower_calibration_distance(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    step: float | None = None,
) -> float:
    """Lower distance to calibration: min E|u − v| over joint laws of (u, v, y) with E[y | u] = u.

    The least that predictions have to move, in the mean, to become calibrated, if all is known of
    them are their values and labels (arXiv:2211.16886, definition of dCE with a lower bar). A
    linear program over the places u, to which places are added where its prices say that one is
    missing until no place can gain more than 1e-9: no grid of u is left in the result.

    Args:
        probabilities: [n], of the positive class, in [0, 1].
        labels: [n], 0 or 1.
        weights: [n], non-negative; all equal by default.
        step: round predictions to multiples of it first, which changes the result by at most half
            of it; 0 for none. By default none up to 1000 distinct predictions, 1/1000 beyond.

    Returns:
        in [0, 1]; 0 is calibrated.

    Raises:
        ValueError: an argument of another shape or range.
        AlliageError: the linear program is not solved.
    """
    data = checked(probabilities, labels, weights)
    if step is not None and not 0 <= step <= 1:
        raise ValueError(f"step must lie in [0, 1], got {step}.")
    if step is None:
        step = 1 / DISTINCT if len(np.unique(data.values)) > DISTINCT else 0
    if step:
        data = Binary(np.minimum(np.round(data.values / step) * step, 1.0), *data[1:])
    found = levels(data)
    places = np.union1d(found.values, np.linspace(0, 1, 33))
    for _ in range(_ROUNDS):
        rows = np.searchsorted(places, found.values)
        supply = np.zeros((2, len(places)))
        supply[:, rows] = found.mass - found.positive, found.positive
        solution = _solve(places, supply)
        missing, gains = _missing(places, solution)
        if gains.max() <= TOLERANCE:
            return max(0.0, solution.value)
        places = np.union1d(places, missing[gains > TOLERANCE / 10])
    raise AlliageError(
        Problem(
            "lower calibration distance",
            f"off by up to {gains.max():.1g} after {_ROUNDS} rounds.",
            "Round the predictions: step=0.001.",
        )
    )


def _solve(places: Floats, supply: Floats) -> _Solution:
    """Carry the mass of each label along the line, and end with calibrated places.

    Variables: for each label the flow over each gap to the right and to the left, then the mass
    a(u) that ends at each place, of which u is positive. Rows: what is there, less what leaves, is
    what ends there.

    Args:
        places: [m], increasing, from 0 to 1.
        supply: [2, m], mass of label 0 and of label 1.
    """
    from scipy.optimize import linprog

    m = len(places)
    gaps = np.diff(places)
    leaves = sparse.diags_array(
        [np.ones(m - 1), -np.ones(m - 1)], offsets=[0, -1], shape=(m, m - 1)
    )
    both = sparse.hstack([leaves, -leaves])
    rows = sparse.block_array(
        [
            [both, None, sparse.diags_array(1 - places)],
            [None, both, sparse.diags_array(places)],
        ]
    )
    cost = np.concatenate([np.tile(gaps, 4), np.zeros(m)])
    # Masses of about 1/m would sink below the solver's absolute tolerances.
    scaled = m * supply.ravel()
    options = dict.fromkeys(_TOLERANCES, 1e-10)  # the least that HiGHS takes
    found = linprog(cost, A_eq=rows.tocsr(), b_eq=scaled, method="highs", options=options)
    if not found.success:
        raise AlliageError(
            Problem("lower calibration distance", found.message, "Round with a larger step.")
        )
    negative, positive = found.eqlin.marginals.reshape(2, m)
    return _Solution(float(found.fun) / m, negative, positive)


def _missing(places: Floats, solution: _Solution) -> tuple[Floats, Floats]:
    """Between each two places, the one that would lower the cost most, and by how much.

    Mass that ends at u is worth (1 − u) p₀(u) + u p₁(u) at prices p, which may not exceed 0. From
    one place to the next a price falls with slope 1, then rises with slope 1.
    """
    left, right = places[:-1], places[1:]
    kinks = [
        (left + right + price[:-1] - price[1:]) / 2
        for price in (solution.negative, solution.positive)
    ]
    edges = np.sort(
        [left, np.clip(kinks[0], left, right), np.clip(kinks[1], left, right), right], 0
    )
    spots = []
    for low, high in pairwise(edges):
        middle = (low + high) / 2
        # On this piece a parabola: through three of its points to its top.
        below, at, above = (_worth(places, solution, u) for u in (low, middle, high))
        bend = below - 2 * at + above
        with np.errstate(divide="ignore", invalid="ignore"):
            top = middle + (high - low) / 4 * np.where(bend < 0, (below - above) / bend, 0.0)
        spots.append(np.clip(np.nan_to_num(top, nan=0.5), low, high))
    worth = np.stack([_worth(places, solution, u) for u in spots])
    best = worth.argmax(axis=0), np.arange(len(left))
    return np.stack(spots)[best], worth[best]


def _worth(places: Floats, solution: _Solution, spots: Floats) -> Floats:
    """What a unit of calibrated mass at one spot between each two places lowers the cost by."""
    negative, positive = (
        np.maximum(price[:-1] - (spots - places[:-1]), price[1:] - (places[1:] - spots))
        for price in (solution.negative, solution.positive)
    )
    worth: Floats = (1 - spots) * negative + spots * positive
    return worth
