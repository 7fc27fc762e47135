"""From a model's answers to metrics, their intervals, and tests against another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from alliage.data import Task
from alliage.evaluation.answers import Answers
from alliage.evaluation.confidence import calibration_differences
from alliage.evaluation.intervals import (
    Difference,
    Interval,
    differences,
    exact_interval,
    intervals,
    mcnemar,
    whole_differences,
    whole_intervals,
)
from alliage.evaluation.metrics import METRICS, count_entities, glue_metrics, positive_label
from alliage.evaluation.tally import (
    Tally,
    classification_tally,
    joined,
    perplexity_tally,
    ratio_tally,
    regression_tally,
)
from alliage.evaluation.text_metrics import exact_match, rouge
from alliage.evaluation.writing import Writing

Whole = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True)
class Evidence:
    """What a model's metrics on a task are computed from, example by example.

    Attributes:
        tally: metrics that are functions of sums.
        whole: name -> a metric that is not, of the examples at given indices.
        decisions: the metric that is the share of right answers -> [n], whether each is right,
            where every example is one decision.
        calibration: the answers, where their calibration is to be compared.
    """

    tally: Tally
    whole: Mapping[str, Whole] = field(default_factory=dict)
    decisions: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    calibration: Answers | None = None

    def metrics(self) -> dict[str, float]:
        """Every metric of all examples; NaN where it is not defined."""
        everything = np.arange(len(self.tally))
        return self.tally.values() | {name: of(everything) for name, of in self.whole.items()}

    def intervals(self) -> dict[str, Interval]:
        """95 % bootstrap intervals of the metrics.

        Where all or none of single decisions are right, every resample says the same: the interval
        of their share is the exact one then.
        """
        found = intervals(self.tally) | whole_intervals(len(self.tally), self.whole)
        for metric, right in self.decisions.items():
            if right.all() == right.any():
                found[metric] = exact_interval(right)
        return found

    def against(self, reference: Evidence) -> dict[str, Difference]:
        """What is different from a reference on the same examples.

        p is of the exact McNemar test for shares of single decisions.
        """
        found = differences(self.tally, reference.tally)
        found |= whole_differences(len(self.tally), self.whole, reference.whole)
        if self.calibration is not None and reference.calibration is not None:
            found |= calibration_differences(self.calibration, reference.calibration)
        for metric in self.decisions.keys() & reference.decisions.keys():
            p = mcnemar(self.decisions[metric], reference.decisions[metric])
            found[metric] = found[metric]._replace(p=p, test="mcnemar")
        return found


def weigh(task: Task, answers: Answers | Writing) -> Evidence:
    """The metrics of a task's kind, from what a model answered.

    Sequences, images and tokens: see `classification_tally`; entities: `entity_tally`; numbers:
    Pearson's and Spearman's correlation and mean squared error; choices: accuracy; texts:
    perplexity and, where any were written, exact match and ROUGE. "glue" is what GLUE would count,
    of tasks named as there.
    """
    if isinstance(answers, Writing):
        return _texts(answers)
    if task.kind == "regression":
        found = _numbers(answers)
    elif task.kind == "multiple-choice":
        right = answers.predicted == answers.truth
        tally = ratio_tally({"accuracy": (right, np.ones(len(right)))})
        found = Evidence(tally, decisions={"accuracy": right})
    elif task.has_entities:
        tags = np.array(task.labels)
        truth, predicted = tags[answers.truth], tags[answers.predicted]
        pairs = map(answers.by_example, (truth, predicted))
        found = Evidence(count_entities(*([list(map(str, s)) for s in side] for side in pairs)))
    else:
        tally = classification_tally(
            answers.truth,
            answers.predicted,
            len(task.labels),
            examples=answers.examples,
            count=answers.count,
            positive=positive_label(task.labels),
        )
        tokens = task.kind == "token-classification"
        right = {} if tokens else {"accuracy": answers.predicted == answers.truth}
        found = Evidence(tally, decisions=right)
    return _with_glue(task, found)


def known_metrics(task: Task) -> tuple[str, ...]:
    """The names of all metrics that a task may have."""
    answers = {
        "regression": "numbers",
        "multiple-choice": "choices",
        "text-generation": "written texts",
    }.get(task.kind) or (
        "entities"
        if task.has_entities
        else "two labels"
        if len(task.labels) == 2
        else "more labels"
    )
    return METRICS[answers] + (("glue",) if glue_metrics(task.name) else ())


def _texts(answers: Writing) -> Evidence:
    tally = perplexity_tally(answers.losses, answers.tokens)
    if answers.written is None:
        return Evidence(tally)
    ones = np.ones(len(answers.expected))
    pairs = zip(answers.expected, answers.written, strict=True)
    same = np.array([exact_match(expected, written) for expected, written in pairs], bool)
    metrics: dict[str, Any] = {"exact_match": (same, ones)}
    for name, values in rouge(answers.expected, answers.written).items():
        metrics[name] = (values, ones)
    return Evidence(joined(tally, ratio_tally(metrics)), decisions={"exact_match": same})


def _numbers(answers: Answers) -> Evidence:
    truth, predicted = answers.truth.astype(np.float64), answers.logits[:, 0].astype(np.float64)
    tally = regression_tally(truth, predicted)

    def spearman(indices: NDArray[np.int64]) -> float:
        with np.errstate(invalid="ignore"):
            ranks = [stats.rankdata(side[indices]) for side in (truth, predicted)]
            return float(np.corrcoef(*ranks)[0, 1])

    return Evidence(tally, {"spearman": spearman})


def _with_glue(task: Task, found: Evidence) -> Evidence:
    official = glue_metrics(task.name)
    known = {*found.tally.metrics, *found.whole}
    if not official or not known.issuperset(official):
        return found
    if set(official) <= set(found.tally.metrics):
        return replace(found, tally=found.tally.with_mean("glue", official))

    def mean(indices: NDArray[np.int64]) -> float:
        part = Tally(found.tally.rows[indices], found.tally.metrics).values()
        return float(
            np.mean([part[one] if one in part else found.whole[one](indices) for one in official])
        )

    return replace(found, whole={**found.whole, "glue": mean})
