"""Conditions that a model must meet: "smce<=0.03", "accuracy>=0.9*base". Pure: texts in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from operator import ge, gt, le, lt

from alliage.errors import Problem, UsageError, nearest
from alliage.evaluation.metrics import CALIBRATION_DETAILS

BASE = "base"
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {"<=": le, ">=": ge, "<": lt, ">": gt}
_PARTS = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*([^\s<>=].*?)\s*")
_FORM = "Write a metric, one of <= >= < >, and a number or a number*base: accuracy>=0.9*base."


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition.

    Attributes:
        text: as it was written.
        metric: what is measured.
        operator: one of <=, >=, <, >.
        number: the bound, or what the reference's metric is multiplied with.
        relative: whether the bound is a multiple of the reference's metric.
    """

    text: str
    metric: str
    operator: str
    number: float
    relative: bool

    def check(self, value: float, reference: float | None, where: str) -> Problem | None:
        """Nothing where a model meets it; what it is short of otherwise, or where it is NaN.

        Args:
            value: the model's metric.
            reference: the reference model's, for a relative bound.
            where: the model and task.
        """
        bound = self.number
        if self.relative:
            assert reference is not None
            bound *= reference
        if _OPERATORS[self.operator](value, bound):
            return None
        shown = f" ({self.number:g}*{reference:.4f})" if self.relative else ""
        what = f"{self.metric} is {value:.4f}, required {self.operator} {bound:.4f}{shown}."
        return Problem(where, what)


def parse_requirements(
    texts: Iterable[str], known: Set[str], *, has_base: bool
) -> list[Requirement]:
    """Read conditions.

    Args:
        texts: each "METRIC OP NUMBER", "METRIC OP NUMBER*base" or "METRIC OP base".
        known: names of metrics that will be measured.
        has_base: whether there is a reference model.

    Raises:
        UsageError: not of this form, an unknown metric, or base without a reference; every one.
    """
    found, problems = [], []
    for text in texts:
        where = f"--require {text!r}"
        match = _PARTS.fullmatch(text)
        bound = _parse_bound(match[3]) if match else None
        if match is None or bound is None:
            problems.append(Problem(where, "is no condition.", _FORM))
            continue
        if match[1] not in known:
            problems.append(_unknown(match[1], known, where))
        if bound[1] and not has_base:
            problems.append(Problem(where, "base is no model yet.", "Name it with --against."))
        found.append(Requirement(text, match[1], match[2], *bound))
    if problems:
        raise UsageError(problems)
    return found


def check_requirements(
    requirements: Sequence[Requirement],
    metrics: Mapping[str, Mapping[str, float]],
    references: Mapping[str, Mapping[str, float]],
    model: str,
) -> list[Problem]:
    """What a model is short of, on every task that it was scored on.

    A task that has no such metric is passed over. A condition that no task decides, or that lacks
    the reference's score, is not met: nobody knows.

    Args:
        requirements: all must be met.
        metrics: task -> metric -> the model's value.
        references: task -> metric -> the reference's value.
        model: its name.
    """
    problems = []
    for one in requirements:
        decided = {
            task: values[one.metric] for task, values in metrics.items() if one.metric in values
        }
        if not decided:
            problems.append(Problem(model, f"{one.metric} was not measured on any task."))
        for task, value in decided.items():
            where = f"{model} on {task}"
            reference = references.get(task, {}).get(one.metric)
            if one.relative and reference is None:
                problems.append(Problem(where, f"{one.metric} of base was not measured."))
            elif problem := one.check(value, reference, where):
                problems.append(problem)
    return problems


def _unknown(metric: str, known: Set[str], where: str) -> Problem:
    if metric not in CALIBRATION_DETAILS:
        return Problem(where, "no such metric.", nearest(metric, {*known, *CALIBRATION_DETAILS}))
    if known.isdisjoint(CALIBRATION_DETAILS):
        return Problem(where, "was not asked for.", "Add --calibration.")
    fix = "Write a YAML file whose columns name a domain."
    return Problem(where, "none of the tasks tells domains.", fix)


def _parse_bound(text: str) -> tuple[float, bool] | None:
    """The number, and whether it multiplies the reference's metric; None for anything else."""
    factors = [part.strip() for part in text.split("*")]
    relative = BASE in factors
    if relative:
        factors.remove(BASE)
    if len(factors) > 1 or not (factors or relative):
        return None
    try:
        number = float(factors[0]) if factors else 1.0
    except ValueError:
        return None
    return (number, relative) if math.isfinite(number) else None
