"""Who contains whom: from shares of energy to a directed graph and places to draw it at."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Array = npt.NDArray[np.float64]
Relation = npt.NDArray[np.bool_]

_BOWS = (0.0, *(side * bow / 100 for bow in (9, 18, 27, 36, 50, 65, 80) for side in (1, -1)))
_STEPS = 129  # of a curve


def contained(energies: npt.ArrayLike, floor: Array | float, margin: float) -> Relation:
    """Which models lie in which, by more than chance and more than the other way round.

    Args:
        energies: [n, n], the share of i's energy that lies in j's space, from 0 to 1; the diagonal
            does not count, and a pair that is NaN in one direction is no inclusion.
        floor: [n, n] or one number, what chance would not exceed.
        margin: by what part of the reverse a share must exceed it, 0 or more; with 0.1 a share of
            0.3 needs a reverse below 0.273.

    Returns:
        [n, n], True where i lies in j; never both ways.

    Raises:
        ValueError: not [n, n], or a margin below 0.
    """
    shares = np.asarray(energies, dtype=np.float64)
    if shares.ndim != 2 or shares.shape[0] != shares.shape[1]:
        raise ValueError(f"expected energies [n, n], got the shape {list(shares.shape)}")
    if margin < 0:
        raise ValueError(f"expected a margin of 0 or more, got {margin}")
    found = (shares > floor) & (shares > (1 + margin) * shares.T)  # NaN compares as False
    np.fill_diagonal(found, False)
    return found


def reduced(relation: Relation) -> Relation:
    """The transitive reduction: without A in C where a path leads from A to C all the same.

    A relation with a cycle is left as it is: its reduction is not unique.
    """
    if _circular(relation):
        return relation
    beyond = reachable(relation).astype(np.int64)
    return relation & ~(relation.astype(np.int64) @ beyond > 0)


def reachable(relation: Relation) -> Relation:
    """From where to where a path of one arrow or more leads."""
    found, steps = relation.copy(), relation.astype(np.int64)
    for _ in range(len(relation)):
        found |= found.astype(np.int64) @ steps > 0
    return found


def levels(relation: Relation) -> list[int]:
    """How high each model stands: 0 where nothing lies in it, else above all that do.

    Models in a cycle stand at one level.
    """
    group = _groups(relation)
    heights = np.zeros(int(group.max(initial=-1)) + 1, dtype=np.int64)
    arrows = {(int(group[i]), int(group[j])) for i, j in zip(*np.nonzero(relation), strict=True)}
    for _ in heights:
        for low, high in arrows:
            if low != high:
                heights[high] = max(heights[high], heights[low] + 1)
    return [int(heights[one]) for one in group]


def places(relation: Relation) -> Array:
    """Where to draw the models: what contains stands above, arrows cross little.

    Args:
        relation: [n, n], as drawn.

    Returns:
        [n, 2]: x from 0 to 1, y the level; in each level evenly spread, in the order of the mean
        place of what lies in them, and models without any arrow last.
    """
    heights = np.asarray(levels(relation))
    alone = [not (relation[one].any() or relation[:, one].any()) for one in range(len(relation))]
    found = np.zeros((len(relation), 2))
    for level in range(int(heights.max(initial=-1)) + 1):
        members = np.flatnonzero(heights == level)

        def below(model: int) -> float:
            inside = relation[:, model]
            return float(found[inside, 0].mean()) if inside.any() else 0.5

        ordered = sorted(members.tolist(), key=lambda one: (alone[one], below(one), one))
        for index, model in enumerate(ordered):
            found[model] = (index + 0.5) / len(ordered), level
    return found


def bends(
    relation: Relation, points: Array, clear: float, page: tuple[float, float, float, float]
) -> dict[tuple[int, int], float]:
    """How far each arrow must bow to keep clear of models on its way: 0 straight, else sideways.

    Args:
        relation: [n, n], as drawn.
        points: [n, 2], where the models are drawn, in units of the page.
        clear: how far an arrow's middle line must stay from other models, in the same units.
        page: the least x and y and the largest, which arrows stay within where they can.

    Returns:
        (i, j) -> the share b of its length by which the control point of the arrow, a quadratic
        curve, lies off the middle: by b·(y, −x) for an arrow that goes by (x, y). Where nothing
        keeps clear, what comes nearest to it.
    """
    shares = np.linspace(0.0, 1.0, _STEPS)[:, None]
    found = {}
    for i, j in zip(*(axis.tolist() for axis in np.nonzero(relation)), strict=True):
        way = points[j] - points[i]
        others = np.delete(points, (i, j), axis=0)
        best = (-1.0, -1.0)
        for bow in _BOWS:
            control = (points[i] + points[j]) / 2 + bow * np.array([way[1], -way[0]])
            curve = (
                (1 - shares) ** 2 * points[i]
                + 2 * shares * (1 - shares) * control
                + shares**2 * points[j]
            )
            inside = bool(((curve >= page[:2]) & (curve <= page[2:])).all())
            away = np.linalg.norm(curve[:, None] - others, axis=-1).min(initial=clear)
            if (inside, away) > best:  # the least bow of those that are alike
                best, found[i, j] = (inside, float(away)), bow
            if best >= (True, clear):
                break
    return found


def _groups(relation: Relation) -> npt.NDArray[np.int64]:
    """The strongly connected component of each model."""
    return np.asarray(
        connected_components(csr_array(relation), connection="strong")[1], dtype=np.int64
    )


def _circular(relation: Relation) -> bool:
    group = _groups(relation)
    return len(set(group.tolist())) < len(group) or any(
        relation[i, i] for i in range(len(relation))
    )


def arrows(relation: Relation) -> list[tuple[int, int]]:
    """The pairs (i, j) with i in j, by i and then by j."""
    n = len(relation)
    return [(i, j) for i, j in itertools.product(range(n), range(n)) if relation[i, j]]
