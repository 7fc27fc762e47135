"""From task vectors to a forecast: the planned merges, their predictors, what was learned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from alliage.errors import Problem, UsageError, nearest
from alliage.geometry.forecasting.advice import advise
from alliage.geometry.forecasting.displacement import Planned
from alliage.geometry.forecasting.learned import Learned, Lesson, Needs, shipped
from alliage.geometry.forecasting.predicting import Member, OnEvent, predict
from alliage.geometry.forecasting.result import Expected, Forecast
from alliage.vectors import LowRankVector, TaskVector, Vector

# A merge that moves a model by less than a thousandth of its update, or its answers by less than
# a thousandth of a point, is that model: nothing is lost.
_NOTHING = 1e-3


def forecast_from_weights(
    vectors: Sequence[Vector],
    methods: Sequence[str] = (),
    *,
    learned: Learned | None = None,
    on_event: OnEvent | None = None,
) -> Forecast:
    """What merging every pair, and all, is expected to cost each task, from weights alone.

    Args:
        vectors: two or more of one base, with different names.
        methods: of merging; all that were learned for models tuned in this way by default.
        learned: what to go by; what comes with Alliage by default.
        on_event: called with (stage, done, total).

    Raises:
        UsageError: a method that nothing was learned of, or vectors without common modules.
        AlliageError: NaN in weights.
    """
    known = learned or shipped()
    form = form_of(vectors)
    chosen = choose_methods(known, form, "weights", methods)
    sets = planned_sets([vector.name for vector in vectors])
    ranks = ranks_of(vectors)
    predictors: dict[Planned, dict[Member, dict[str, float]]] = {}
    expected = []
    for method in chosen or ["average"]:
        planned: Planned = (
            "factor_average" if method == "factor_average" and ranks[0] == ranks[1] else "average"
        )
        if planned not in predictors:
            predictors[planned] = predict(vectors, sets, planned, on_event=on_event)
        lesson = known.find(form, method, "weights")
        expected += [
            expect(lesson, form, method, names, task, values, size_of(vectors), ranks)
            for (names, task), values in predictors[planned].items()
        ]
    names = tuple(vector.name for vector in vectors)
    found = Forecast(names, tuple(expected), "weights")
    return Forecast(names, found.expected, "weights", tuple(advise(found, known, form)))


def planned_sets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every pair, and all together where there are more than two."""
    pairs = list(itertools.combinations(names, 2))
    return [*pairs, tuple(names)] if len(names) > 2 else list(pairs)


def form_of(vectors: Sequence[Vector]) -> str:
    """How the models were tuned: "lora", "full", or in words what else."""
    if all(isinstance(vector, LowRankVector) for vector in vectors):
        return "lora"
    if all(isinstance(vector, TaskVector) for vector in vectors):
        return "full"
    kinds = sorted({type(vector).__name__ for vector in vectors})
    return " and ".join(kinds)


def size_of(vectors: Sequence[Vector]) -> int:
    """Parameters of the base."""
    base = vectors[0].base
    return base.numel if base is not None else 0


def ranks_of(vectors: Sequence[Vector]) -> tuple[int, int]:
    """The smallest and the largest rank of LoRA; zeros where there is none."""
    ranks = [
        vector.rank(module)
        for vector in vectors
        if isinstance(vector, LowRankVector)
        for module in vector.modules
    ]
    return (min(ranks), max(ranks)) if ranks else (0, 0)


def choose_methods(known: Learned, form: str, needs: Needs, methods: Sequence[str]) -> list[str]:
    """The methods asked for, or all that were learned.

    Raises:
        UsageError: nothing was learned of one of them, whatever the form.
    """
    every = sorted({lesson.method for lesson in known.lessons if lesson.needs == needs})
    problems = [
        Problem(f"method {method!r}", "no forecast was learned for it.", nearest(method, every))
        for method in methods
        if method not in every
    ]
    if problems:
        raise UsageError(problems)
    return list(methods) or known.methods(form, needs)


def expect(
    lesson: Lesson | None,
    form: str,
    method: str,
    names: tuple[str, ...],
    task: str,
    values: Mapping[str, float],
    size: int,
    ranks: tuple[int, int],
) -> Expected:
    """A forecast of one loss, or why there is none.

    Args:
        lesson: what was learned for the form and the method.
        form: how the models were tuned.
        method: of the merge.
        names: of the models that are merged.
        task: one of them.
        values: of the predictors.
        size: parameters of the base.
        ranks: the smallest and the largest.
    """
    if lesson is None:
        words = {"lora": "LoRA adapters", "full": "models tuned in full"}.get(form, form)
        refused = [f"nothing was learned of merging {words} by {method}"]
    else:
        refused = lesson.outside(values, size, ranks)
    change = values.get("variation", math.nan)
    if method in ("average", "factor_average"):
        change = values.get("all.distance", change)
    if change < _NOTHING:
        return Expected(names, task, method, 0.0, 0.0, 0.0, values)
    if lesson is None or refused:
        nothing = (math.nan, math.nan, math.nan)
        return Expected(names, task, method, *nothing, values, tuple(refused))
    row = np.array([[values[name] for name in lesson.model.predictors]])
    points = float(lesson.model.forecast(row)[0])
    width = lesson.model.width
    return Expected(names, task, method, points, points - width, points + width, values)
