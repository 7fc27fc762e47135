"""Repairs of one event on several classes, and what their documents have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from alliage.evaluation.calibration.checks import (
    Binary,
    Floats,
    checked,
    checked_probabilities,
    checked_rows,
)


class Knots(NamedTuple):
    """A piecewise linear function: its value at increasing places, constant beyond them."""

    places: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, places: Floats) -> Floats:
        """Its values at some places."""
        found: Floats = np.interp(places, self.places, self.values)
        return found


def events(probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None) -> list[Binary]:
    """One event of predictions [n] or of two classes; otherwise each class against the rest.

    Raises:
        ValueError: an argument of another shape or range.
    """
    if np.ndim(probabilities) == 1:
        return [checked(probabilities, labels, weights)]
    rows, truth = checked_rows(probabilities, labels)
    chosen = [1] if rows.shape[1] == 2 else range(rows.shape[1])
    return [checked(rows[:, label], truth == label, weights) for label in chosen]


def mapped(probabilities: ArrayLike, maps: Sequence[Callable[[Floats], Floats]]) -> Floats:
    """Probabilities with the map of each event applied; rows sum to 1.

    Rows in which every class comes to 0 become uniform, as in scikit-learn.

    Raises:
        ValueError: there are not as many classes as maps, or no probabilities.
    """
    values = checked_probabilities(probabilities)
    if values.ndim == 1 or values.shape[1] == 2:
        if len(maps) != 1:
            raise ValueError(f"The repair is of {len(maps)} classes.")
        share = maps[0](values if values.ndim == 1 else values[:, 1])
        return share if values.ndim == 1 else np.stack([1 - share, share], axis=1)
    if len(maps) != values.shape[1]:
        fitted = 2 if len(maps) == 1 else len(maps)
        raise ValueError(f"The repair is of {fitted} classes, not of {values.shape[1]}.")
    shares = np.stack([one(values[:, label]) for label, one in enumerate(maps)], axis=1)
    totals = shares.sum(axis=1, keepdims=True)
    uniform = np.full_like(shares, 1 / len(maps))
    repaired: Floats = np.divide(shares, totals, out=uniform, where=totals > 0)
    return repaired


def numbers(document: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """A list of finite numbers in a repair's document.

    Raises:
        ValueError: there is none.
    """
    return _numbers(document.get(key), key)


def knots_from_json(document: Mapping[str, Any]) -> tuple[Knots, ...]:
    """The functions that `knots_to_json` wrote.

    Raises:
        ValueError: there are none.
    """
    found = document.get("knots")
    if not isinstance(found, list) or not found:
        raise ValueError("knots must be a list of functions.")
    functions = []
    for one in found:
        if not isinstance(one, Mapping):
            raise ValueError("knots must be a list of functions, each with places and values.")
        function = Knots(numbers(one, "places"), numbers(one, "values"))
        if len(function.places) != len(function.values) or not (np.diff(function.places) > 0).all():
            raise ValueError("knots must have increasing places and a value at each.")
        functions.append(function)
    return tuple(functions)


def knots_to_json(functions: tuple[Knots, ...]) -> list[dict[str, list[float]]]:
    """Functions as lists of numbers."""
    return [{"places": list(one.places), "values": list(one.values)} for one in functions]


def _numbers(found: Any, key: str) -> tuple[float, ...]:
    if (
        not isinstance(found, list)
        or not found
        or not all(type(one) in (int, float) and np.isfinite(one) for one in found)
    ):
        raise ValueError(f"{key} must be a list of numbers.")
    return tuple(map(float, found))
