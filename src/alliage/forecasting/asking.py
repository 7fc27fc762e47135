"""The forecast: from weights alone, or from what merges answer to unlabelled examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from alliage.data import Task, load_task
from alliage.errors import Problem, UsageError
from alliage.forecasting.bodies import Bodies, Logits, check_factors, supported
from alliage.forecasting.measures import changed_share, expected_loss, total_variation
from alliage.geometry.forecasting.advice import advise
from alliage.geometry.forecasting.forecasting import (
    expect,
    forecast_from_weights,
    form_of,
    planned_sets,
    ranks_of,
    size_of,
)
from alliage.geometry.forecasting.learned import shipped
from alliage.geometry.forecasting.result import Expected, Forecast
from alliage.geometry.surveying.opening import Ref, open_vectors
from alliage.geometry.surveying.selection import check_vectors

OnEvent = Callable[[str, int, int], None]

EXAMPLES = 64
_FEWEST = 16


def forecast(
    base: Ref,
    models: Sequence[Ref] | Mapping[str, Ref],
    methods: str | Sequence[str] = (),
    *,
    tasks: Sequence[str | Path | Task] = (),
    examples: int = EXAMPLES,
    split: str = "validation",
    on_event: OnEvent | None = None,
) -> Forecast:
    """Say what merging every pair of some models, and all of them, will cost each one's task.

    Without tasks from weights alone, see `geometry.forecasting`; with them, each merge is made in
    memory and asked about unlabelled examples, see `predictors`: nearer to the truth, and for any
    method. What was learned comes from measured merges; outside their range nothing is forecast,
    and only the predictors are told.

    Args:
        base: the models' common ancestor.
        models: two or more, full models or adapters, or names with their models.
        methods: of merging: one or several; what was learned for models tuned in this way by
            default, "average" with tasks.
        tasks: of each model its own, in their order; labels are not looked at.
        examples: at most so many of each task, 16 or more; more make the forecast nearer.
        split: of the tasks.
        on_event: called with (stage, done, total).

    Raises:
        UsageError: a wrong argument, or models without common modules.
        AlliageError: models that do not fit the base, damaged files, NaN.
    """
    wanted = [methods] if isinstance(methods, str) else list(methods)
    vectors = open_vectors(base, models)
    check_vectors(vectors)
    if not tasks:
        return forecast_from_weights(vectors, wanted, on_event=on_event)
    wanted = wanted or ["average"]
    problems = [
        Problem(f"method {method!r}", "makes no single model in memory.")
        for method in wanted
        if not supported(method)
    ]
    if examples < _FEWEST:
        problems.append(Problem("examples", f"must be {_FEWEST} or more, got {examples}."))
    if problems:
        raise UsageError(problems)
    if "factor_average" in wanted:
        check_factors(vectors)
    loaded = [task if isinstance(task, Task) else load_task(task) for task in tasks]
    bodies = Bodies(vectors, loaded, split, examples)
    names = tuple(vector.name for vector in vectors)
    merges = [(method, group) for method in wanted for group in planned_sets(names)]
    known, form = shipped(), form_of(vectors)
    size, ranks = size_of(vectors), ranks_of(vectors)
    expected: list[Expected] = []
    for done, (method, group) in enumerate(merges, 1):
        answers = bodies.answers(group, method)
        lesson = known.find(form, method, "answers")
        expected += [
            expect(
                lesson, form, method, group, name,
                predictors(bodies.parents[name], answers[name]), size, ranks,
            )
            for name in group
        ]  # fmt: skip
        if on_event is not None:
            on_event("merging and asking", done, len(merges))
    counts = {name: len(answers) for name, answers in bodies.parents.items()}
    merges_of = known.source["merges"]
    expected = [_measured(_widened(each, counts[each.task]), form, merges_of) for each in expected]
    found = Forecast(names, tuple(expected), "answers")
    told = ", ".join(f"{name} {counts[name]}" for name in names)
    notes = [f"Unlabelled examples of each task ({split} split): {told}."]
    if min(counts.values()) < EXAMPLES:
        notes.append(
            f"Intervals were learned with {EXAMPLES} examples; of n fewer they are √({EXAMPLES}/n) "
            "times wider, which is not measured."
        )
    return Forecast(
        names, found.expected, "answers", tuple(advise(found, known, form)), tuple(notes)
    )


def _measured(
    expected: Expected, form: str, merges: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> Expected:
    """Refused where no merge of the form by the method, or of so many models, was measured.

    Args:
        expected: of one task.
        form: how the models were tuned.
        merges: family -> method -> size of the set -> how many were measured.
    """
    fitting = [by for name, by in merges.items() if name.endswith("lora") == (form == "lora")]
    sizes = [int(size) for by in fitting for size in by.get(expected.method, ())]
    reason = None
    if form not in ("lora", "full") or not sizes:
        words = {"lora": "LoRA adapters", "full": "models tuned in full"}.get(form, form)
        reason = f"no merge of {words} by {expected.method} was measured"
    elif len(expected.models) > max(sizes):
        reason = (
            f"{len(expected.models)} models at once; by {expected.method} at most {max(sizes)} "
            "were measured"
        )
    if reason is None or expected.low == expected.high == 0:
        return expected
    nothing = math.nan
    return replace(expected, points=nothing, low=nothing, high=nothing, refused=(reason,))


def _widened(expected: Expected, count: int) -> Expected:
    """With an interval that is wider where fewer examples were asked than it was learned with."""
    factor = math.sqrt(max(EXAMPLES / count, 1.0))
    low, high = (
        expected.points + factor * (end - expected.points) for end in (expected.low, expected.high)
    )
    return replace(expected, low=low, high=high)


def predictors(parent: Logits, merged: Logits) -> dict[str, float]:
    """What a merge changes in a parent's answers, in points of a hundred.

    Args:
        parent: logits [n, labels].
        merged: of the same examples.
    """
    return {
        "changed": 100 * changed_share(parent, merged),
        "expected": 100 * expected_loss(parent, merged),
        "variation": 100 * total_variation(parent, merged),
    }
