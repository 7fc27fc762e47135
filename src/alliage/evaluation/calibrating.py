"""Fitting a repair to a model's probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.writer import refuse_existing
from alliage.data import Task, load_task
from alliage.errors import AlliageError, Problem, UsageError, nearest
from alliage.evaluation.answers import Answers
from alliage.evaluation.calibration.repairs import REPAIRS, Repair, Temperature, fit_repair
from alliage.evaluation.confidence import calibration_metrics
from alliage.evaluation.evidence import weigh
from alliage.evaluation.models import load_classifier
from alliage.evaluation.saved_repair import SavedRepair
from alliage.evaluation.scoring import Settings, ask, labelled

FOLDS = 5
_BETWEEN_CHOICES = ("temperature",)  # the others are of one class each, and choices are none


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """What a repair does to a model's answers.

    Attributes:
        out: the file it was written to.
        repair: its name.
        task: name of the task.
        split: what it was fitted on.
        examples: how many.
        before: accuracy and calibration of the model as it is.
        after: the same after the repair, on examples it was not fitted on: of five folds, each is
            repaired by a fit to the other four. The repair that is kept was fitted to all.
        note: what a reader of the figures has to know.
    """

    out: Path
    repair: str
    task: str
    split: str
    examples: int
    before: dict[str, float]
    after: dict[str, float]
    note: str = ""


def calibrate(
    model: str | Path | Checkpoint,
    task: str | Path | Task,
    repair: str,
    out: str | Path,
    *,
    head: str | None = None,
    split: str = "validation",
    limit: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    on_event: Callable[[str, int, int], None] | None = None,
) -> CalibrationRecord:
    """Fit a repair to a model's answers, and write it to a file.

    As `calibration.json` in the model's folder it is applied wherever the model is evaluated;
    elsewhere, give it to `evaluate`. The model itself stays as it is.

    Args:
        model: whatever `alliage.evaluation.evaluate` takes.
        task: labels, tokens, images or choices.
        repair: temperature, platt, isotonic or lipschitz-isotonic; of choices, temperature.
        out: the new file.
        head: of a merged model, the parent whose head to use.
        split: to fit on; not the one that the model was tuned on.
        limit: fit to a random part of at most so many examples, the same each time.
        batch_size: examples in one pass.
        device: "cpu" or "cuda".
        on_event: called with (stage, done, total).

    Raises:
        UsageError: no such repair, model, task or split; a task whose answers have no confidence;
            an `out` that exists.
        Misfit: the model's labels are not the task's.
        AlliageError: damaged files, or too few examples.
    """
    out = Path(out)
    loaded = task if isinstance(task, Task) else load_task(task)
    _check(repair, loaded, out)
    examples = labelled(loaded, split, limit)
    if len(examples) < FOLDS:
        what = f"{len(examples)} examples are too few to fit a repair and check it."
        raise AlliageError(Problem(f"{loaded.name}: {split}", what))
    notify = on_event or (lambda *_: None)
    with open_checkpoint(model) as checkpoint:
        classifier = load_classifier(checkpoint, loaded, head=head)
        settings = Settings(batch_size=batch_size, device=device)
        answers = ask(classifier, examples, settings, partial(notify, classifier.name))
        assert isinstance(answers, Answers)
        described = provenance.describe_input("model", checkpoint)
    fitted = fit_repair(repair, answers.probabilities, answers.truth)
    out.parent.mkdir(parents=True, exist_ok=True)
    SavedRepair(
        fitted, loaded.labels, loaded.kind, loaded.name, split, len(examples), described
    ).write(out)
    after = cross_fitted(repair, answers)
    return CalibrationRecord(
        out, repair, loaded.name, split, len(examples),
        before=_measured(loaded, answers), after=_measured(loaded, after), note=_note(fitted),
    )  # fmt: skip


def cross_fitted(repair: str, answers: Answers, *, seed: int = 0) -> Answers:
    """Answers repaired by fits to other examples: to four of five random folds each.

    Sentences stay whole, in one fold.
    """
    folds = np.random.default_rng(seed).permutation(answers.count) % FOLDS
    own = folds[answers.examples]
    probabilities = answers.probabilities
    repaired = np.empty_like(probabilities)
    for fold in range(FOLDS):
        apart = own == fold
        if apart.any():
            fitted = fit_repair(repair, probabilities[~apart], answers.truth[~apart])
            repaired[apart] = fitted.apply(probabilities[apart])
    with np.errstate(divide="ignore"):
        return replace(answers, logits=np.log(repaired))


def _measured(task: Task, answers: Answers) -> dict[str, float]:
    accuracy = weigh(task, answers).tally.values()["accuracy"]
    return {"accuracy": accuracy} | calibration_metrics(answers)


def _note(fitted: Repair) -> str:
    if not isinstance(fitted, Temperature) or not fitted.limit:
        return ""
    return f"temperature: {fitted.limit}, and the repair goes to its end, {fitted.temperature:.3g}."


def _check(repair: str, task: Task, out: Path) -> None:
    problems = []
    if repair not in REPAIRS:
        problems.append(Problem("--repair", f"no repair {repair!r}.", nearest(repair, REPAIRS)))
    elif task.kind == "multiple-choice" and repair not in _BETWEEN_CHOICES:
        problems.append(Problem("--repair", f"{repair} is of classes.", "Choices: temperature."))
    if task.kind in ("regression", "text-generation"):
        problems.append(Problem(task.name, f"answers of {task.kind} have no confidence."))
    try:
        refuse_existing(out)
    except UsageError as error:
        problems += error.problems
    if problems:
        raise UsageError(problems)
