"""What a search asks of its merges: tasks, examples, and the number that tells good from bad."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alliage.data import Example, Task
from alliage.errors import Problem, UsageError, nearest
from alliage.evaluation.answers import Answers
from alliage.evaluation.confidence import calibration_metrics
from alliage.evaluation.evidence import known_metrics, weigh
from alliage.evaluation.metrics import CALIBRATION
from alliage.evaluation.scoring import labelled
from alliage.evaluation.writing import Writing

Criterion = Literal["score", "entropy"]
ENTROPY = "entropy"
# Better when lower; all others when higher.
_LOWER = {*CALIBRATION, "mse", "perplexity", ENTROPY}
# What decides where nobody names a metric: the first of these that the task has.
_MAIN = ("f1", "accuracy", "pearson", "exact_match", "perplexity")


@dataclass(frozen=True)
class Question:
    """A task, the examples that are asked, and the metric that counts.

    Attributes:
        task: what is asked.
        split: where the examples are from.
        examples: in memory.
        metric: that is measured.
        head: of the merged model, the parent whose head answers; chosen by the task if none.
    """

    task: Task
    split: str
    examples: tuple[Example, ...]
    metric: str
    head: str | None = None

    @property
    def maximised(self) -> bool:
        """Whether a higher value is better."""
        return self.metric not in _LOWER

    def digest(self) -> str:
        """Of the examples: inputs and labels."""
        found = hashlib.sha256()
        for inputs, label, _ in self.examples:
            image = isinstance(inputs, np.ndarray)
            content = (inputs.shape, str(inputs.dtype), inputs.tobytes()) if image else inputs
            found.update(repr((content, label)).encode())
        return found.hexdigest()

    def measure(self, answers: Answers | Writing) -> float:
        """The metric of a model's answers.

        Raises:
            UsageError: it is not among what they tell, as exact match where nothing is written.
        """
        if self.metric == ENTROPY:
            assert isinstance(answers, Answers)
            return mean_entropy(answers)
        if self.metric in CALIBRATION:
            assert isinstance(answers, Answers)
            return calibration_metrics(answers)[self.metric]
        evidence = weigh(self.task, answers)
        if self.metric in evidence.whole:
            return evidence.whole[self.metric](np.arange(len(evidence.tally)))
        found = evidence.tally.values()
        if self.metric not in found:
            what = f"{self.metric} is not measured here."
            raise UsageError(Problem(self.task.name, what, nearest(self.metric, found)))
        return found[self.metric]


def questions_of(
    tasks: Sequence[Task],
    *,
    split: str = "validation",
    limit: int | None = None,
    criterion: Criterion = "score",
    metric: str | None = None,
    heads: Mapping[str, str] | None = None,
) -> list[Question]:
    """What to ask of every merge.

    Args:
        tasks: all count alike.
        split: train, validation or test.
        limit: ask a random part of at most so many examples, the same each time.
        criterion: "score" by the task's labels; "entropy" of the predictions, which needs none.
        metric: of all tasks; by default F1 of entities, accuracy, Pearson's correlation of numbers,
            exact match or perplexity of texts.
        heads: task -> the parent whose head answers it.

    Raises:
        UsageError: an unknown metric, two tasks of one name, a task that the criterion does not
            fit, metrics of which some are better when higher and others when lower; all problems.
        Unlabelled: scores are asked for, and the split has no labels.
    """
    problems = [
        Problem(f"--head {name}", "no such task.", nearest(name, [task.name for task in tasks]))
        for name in heads or {}
        if name not in [task.name for task in tasks]
    ]
    names = [task.name for task in tasks]
    problems += [
        Problem(f"--task {name}", "is there twice.", "Name it once; tasks need names of their own.")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if metric is not None and criterion == "entropy":
        what = "goes with scores: entropy is a metric itself."
        problems.append(Problem("--metric", what, "Add --criterion score (criterion='score')."))
    found = []
    for task in tasks:
        chosen = ENTROPY if criterion == "entropy" else metric or _main_metric(task, split)
        if chosen == ENTROPY and task.kind in ("regression", "text-generation"):
            what = f"is a {task.kind} task: its answers have no entropy over labels."
            problems.append(Problem(task.name, what, "Use the criterion score."))
        elif chosen != ENTROPY and chosen not in known_metrics(task):
            what = f"has no metric {chosen!r}."
            problems.append(Problem(task.name, what, nearest(chosen, known_metrics(task))))
        else:
            asked = (
                [_with_any_label(example, task) for example in task.examples(split, limit=limit)]
                if chosen == ENTROPY
                else labelled(task, split, limit)
            )
            head = (heads or {}).get(task.name)
            found.append(Question(task, split, tuple(asked), chosen, head))
    if len({each.maximised for each in found}) > 1:
        what = f"{', '.join(sorted({each.metric for each in found}))} have no common mean: some are"
        fix = "Name one metric that all tasks have, or search each task apart."
        problems.append(Problem("--metric", f"{what} better when lower.", fix))
    if problems:
        raise UsageError(problems)
    return found


def mean_entropy(answers: Answers) -> float:
    """The mean of −Σ p log p over all decisions, in nats."""
    p = answers.probabilities
    return float(-np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(axis=1).mean())


def _main_metric(task: Task, split: str) -> str:
    known = known_metrics(task)
    examples = task.examples(split)
    if task.kind == "text-generation" and examples and not examples[0].inputs[0]:
        return "perplexity"  # plain language modelling: nothing is written
    wanted = _MAIN if task.has_entities else tuple(each for each in _MAIN if each != "f1")
    return next(metric for metric in wanted if metric in known)


def _with_any_label(example: Example, task: Task) -> Example:
    """An example that nothing but its inputs is known of, in the form that models are asked in."""
    tokens = task.kind == "token-classification"
    return example._replace(label=(0,) * len(example.inputs) if tokens else 0)
