"""Running models over tasks and scoring what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.names import layer_of
from alliage.data import Example, Task, load_task
from alliage.errors import Problem, UsageError
from alliage.evaluation.answers import Answers, OnBatch, predict
from alliage.evaluation.confidence import (
    calibration_details,
    calibration_metrics,
    confidence_bins,
    confidence_curve,
    domain_details,
)
from alliage.evaluation.evidence import weigh
from alliage.evaluation.heads import Misfit
from alliage.evaluation.models import Classifier, load_classifier
from alliage.evaluation.saved_repair import SavedRepair, find_repair
from alliage.evaluation.scores import Scores, TaskScores
from alliage.evaluation.speed import measure_speed
from alliage.evaluation.writing import MAX_NEW_TOKENS, Writing, rank, write

OnEvent = Callable[[str, int, int], None]
MOST_DOMAINS = 200


class Unlabelled(Misfit):
    """The split hides its labels: nothing can be scored on it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to score.

    Attributes:
        batch_size: examples, or choices, in one pass.
        max_new_tokens: of texts that are written.
        device: "cpu" or "cuda".
        speed: whether to measure the time of a pass.
        calibration: whether to measure calibration in detail.
    """

    batch_size: int = 64
    max_new_tokens: int = MAX_NEW_TOKENS
    device: str = "cpu"
    speed: bool = False
    calibration: bool = False


def evaluate(
    model: str | Path | Checkpoint,
    tasks: str | Path | Task | Sequence[str | Path | Task],
    *,
    head: str | None = None,
    split: str = "validation",
    limit: int | None = None,
    batch_size: int = 64,
    max_new_tokens: int = MAX_NEW_TOKENS,
    device: str = "cpu",
    speed: bool = False,
    calibration: bool = False,
    repair: str | Path | None = None,
    on_event: OnEvent | None = None,
) -> Scores:
    """Score a model on labelled data.

    What is measured depends on the kind of task: see `alliage.evaluation.evidence.weigh`; where
    answers come with a confidence, its calibration too: `calibration_metrics`. Every metric of the
    task has a 95 % bootstrap interval by example. Tokens beyond the model's longest text are not
    scored.

    Args:
        model: a classifier, an adapter, a merged body with heads, or a language model: see
            `alliage.evaluation.models.load_classifier`.
        tasks: one or several: see `alliage.data.load_task`.
        head: of a merged model, the parent whose head to use.
        split: train, validation or test.
        limit: score a random part of at most so many examples, the same each time.
        batch_size: examples in one pass.
        max_new_tokens: of the texts that a language model writes.
        device: "cpu" or "cuda".
        speed: measure latency and throughput too.
        calibration: measure calibration in detail too: `calibration_details`, and on each domain
            apart where the task names a column of them.
        repair: a file of `alliage.evaluation.calibrate`; by default calibration.json in the model's
            folder, where there is one that was fitted to the weights that the model has. The scores
            are then those after the repair, `before` holds the others.
        on_event: called with (stage, done, total).

    Raises:
        UsageError: no such model, task or split; a `repair` that was fitted to other weights.
        Misfit: the labels of the model, or of the repair that was given, are not the task's.
        Unlabelled: a split that hides its labels.
        AlliageError: damaged files, or a model that answers NaN.
    """
    settings = Settings(batch_size, max_new_tokens, device, speed, calibration)
    wanted = [tasks] if isinstance(tasks, str | Path | Task) else tasks
    loaded = [task if isinstance(task, Task) else load_task(task) for task in wanted]
    examples = [labelled(task, split, limit) for task in loaded]
    if calibration:
        _check_domains(loaded, examples)
    notify = on_event or (lambda *_: None)
    with open_checkpoint(model) as checkpoint:
        saved, stale = find_repair(checkpoint, Path(repair) if repair is not None else None)
        scores, repaired = [], []
        for task, chosen in zip(loaded, examples, strict=True):
            classifier = load_classifier(checkpoint, task, head=head)
            on_batch = partial(notify, classifier.name)
            found = _score(classifier, task, split, chosen, settings, on_batch)
            scores.append(found.scores)
            if saved is not None and (repair is not None or saved.fits(task)):
                repaired.append(_repaired(saved, task, found, settings))
            else:
                repaired.append(found.scores)
        described = _described(checkpoint, scores)
        if stale is not None:
            described = replace(described, notes=(str(stale),))
        if saved is None or repaired == scores:
            return described
        name = f"{described.model}+{saved.repair.name}"
        return replace(described, model=name, tasks=tuple(repaired), before=described)


def labelled(task: Task, split: str, limit: int | None = None) -> Sequence[Example]:
    """The examples of a split that can be scored.

    Raises:
        UsageError: the task has no such split.
        Unlabelled: it hides its labels.
    """
    examples = task.examples(split, limit=limit)
    if not examples or examples[0].label is None:
        raise Unlabelled(Problem(f"{task.name}: {split}", "has no labels: nothing to score."))
    return examples


def _check_domains(tasks: Sequence[Task], examples: Sequence[Sequence[Example]]) -> None:
    problems = []
    for task, chosen in zip(tasks, examples, strict=True):
        count = len({example.domain for example in chosen})
        if count > MOST_DOMAINS:
            what = f"{count} different domains, of which there may be {MOST_DOMAINS}."
            fix = "Name a column of groups, not of single examples."
            problems.append(Problem(task.name, what, fix))
    if problems:
        raise UsageError(problems)


def ask(
    classifier: Classifier,
    examples: Sequence[Example],
    settings: Settings,
    on_event: OnBatch | None = None,
) -> Answers | Writing:
    """A model's answers, by the kind of its task."""
    given: dict[str, Any] = {
        "batch_size": settings.batch_size, "device": settings.device, "on_event": on_event
    }  # fmt: skip
    if classifier.kind == "text-generation":
        return write(classifier, examples, max_new_tokens=settings.max_new_tokens, **given)
    if classifier.kind == "multiple-choice":
        return rank(classifier, examples, **given)
    return predict(classifier, examples, **given)


def _described(checkpoint: Checkpoint, scores: Sequence[TaskScores]) -> Scores:
    record = (provenance.read(checkpoint.folder) if checkpoint.folder else None) or {}
    base = checkpoint.base if checkpoint.adapter is not None else None
    layers = {layer_of(name) for name in (base or checkpoint).specs()} - {None}
    return Scores(
        model=checkpoint.name,
        role=_role(record),
        method=str(record.get("method") or ""),
        path=str(checkpoint.path),
        layers=len(layers),
        parameters=checkpoint.numel + (base.numel if base else 0),
        bytes=checkpoint.nbytes,
        tasks=tuple(scores),
    )


def _role(record: Mapping[str, Any]) -> str:
    """What a model is in tables, by what made it; a pruned one stays so when tuned again."""
    if "layers_kept" in record:
        return "pruned"
    roles = {"tune": "single", "apply": "single", "extract": "single", "merge": "merged"}
    return roles.get(record.get("command", ""), "base")


@dataclass(frozen=True, slots=True)
class _Scored:
    """Scores on a task, and the answers they are of."""

    scores: TaskScores
    answers: Answers | Writing


def _score(
    classifier: Classifier,
    task: Task,
    split: str,
    examples: Sequence[Example],
    settings: Settings,
    on_event: OnBatch,
) -> _Scored:
    started = time.perf_counter()
    answers = ask(classifier, examples, settings, on_event)
    seconds = time.perf_counter() - started
    scores = TaskScores(
        task=task.name,
        split=split,
        examples=len(examples),
        truncated=classifier.encoder.truncated,
        seconds=seconds,
        **_measured(task, answers, settings),
    )
    if settings.speed:
        speed = measure_speed(classifier, examples, settings.batch_size, device=settings.device)
        scores = replace(scores, speed=speed)
    return _Scored(scores, answers)


def _repaired(saved: SavedRepair, task: Task, found: _Scored, settings: Settings) -> TaskScores:
    """The scores after a repair; they say so where it was fitted to the same examples."""
    if not isinstance(found.answers, Answers):
        raise Misfit(Problem(task.name, "texts have no confidence to repair."))
    answers = saved.apply(task, found.answers)
    scores = replace(found.scores, speed=(), **_measured(task, answers, settings))
    if saved.was_fitted_on(task, scores.split):
        what = f"the repair was fitted on {task.name}: {scores.split} itself."
        scores = replace(scores, note=f"{what} Check it on examples that it has not seen.")
    return scores


def _measured(task: Task, answers: Answers | Writing, settings: Settings) -> dict[str, Any]:
    """The part of `TaskScores` that follows from the answers."""
    evidence = weigh(task, answers)
    found: dict[str, Any] = {"metrics": evidence.metrics(), "intervals": evidence.intervals()}
    if isinstance(answers, Answers) and task.kind != "regression":
        found["metrics"] |= calibration_metrics(answers)
        found["reliability"] = confidence_bins(answers)
        if settings.calibration:
            details = calibration_details(answers, classes=task.kind != "multiple-choice")
            found["domains"], worst = domain_details(answers)
            found["calibration"] = (*details, *worst)
            found["metrics"] |= {row.metric: row.value for row in found["calibration"]}
            found["curve"] = confidence_curve(answers)
            evidence = replace(evidence, calibration=answers)
    return found | {"evidence": evidence}
