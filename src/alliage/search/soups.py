"""Model soups (Wortsman et al. 2022, arXiv:2203.05482): averages of models of one task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from alliage.errors import AlliageError, Problem
from alliage.merging.recipe.files import parse_recipe
from alliage.merging.recipe.schema import MergeRecipe


class Step(NamedTuple):
    """One average that was scored.

    Attributes:
        models: which, by their places.
        value: its score.
        taken: whether it is what the soup went on with.
    """

    models: tuple[int, ...]
    value: float
    taken: bool


def greedy(
    models: int, score: Callable[[tuple[int, ...]], float], *, maximise: bool = True
) -> list[Step]:
    """Choose the models of a soup: the best, then each that does not make the average worse.

    Models are tried in the order of their own scores, of equal ones the first first (recipe 1 of
    the paper).

    Args:
        models: how many there are, at least one.
        score: of the average of some models, by their places in ascending order.
        maximise: whether a higher score is better.

    Returns:
        what was scored: every model alone, then the soups; the last that was taken is the choice.
        What is NaN is worse than all others.

    Raises:
        AlliageError: the score of every model is NaN.
    """
    sign = 1 if maximise else -1
    own = [score((place,)) for place in range(models)]
    order = sorted(range(models), key=lambda place: (math.isnan(own[place]), -sign * own[place]))
    if math.isnan(own[order[0]]):
        what = "the metric is not defined for the answers of any model."
        raise AlliageError(Problem("soup", what, "Choose another metric, or more examples."))
    best = own[order[0]]
    chosen: tuple[int, ...] = (order[0],)
    steps = [Step((place,), own[place], place == order[0]) for place in range(models)]
    for place in order[1:]:
        wider = tuple(sorted((*chosen, place)))
        value = score(wider)
        taken = sign * value >= sign * best
        steps.append(Step(wider, value, taken))
        if taken:
            best, chosen = value, wider
    return steps


def weighted(models: Sequence[str], chosen: Sequence[int]) -> MergeRecipe:
    """The average of some of the models; the others have weight 0, so that all soups have them."""
    return _recipe([(ref, float(place in chosen)) for place, ref in enumerate(models)])


def soup(models: Sequence[str], chosen: Sequence[int]) -> MergeRecipe:
    """The average of some of the models, without the others."""
    return _recipe([(models[place], 1.0) for place in chosen])


def _recipe(entries: Sequence[tuple[str, float]]) -> MergeRecipe:
    models = [{"model": ref, "parameters": {"weight": weight}} for ref, weight in entries]
    return parse_recipe({"method": "average", "models": models})
