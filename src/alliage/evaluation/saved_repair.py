"""A repair of a model's probabilities in a file: what it was fitted to, and applying it again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import alliage
from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints.reference import has_weight_ending, read_json
from alliage.data import Task
from alliage.errors import AlliageError, Problem, UsageError
from alliage.evaluation.answers import Answers
from alliage.evaluation.calibration.repairs import Repair, repair_from_json
from alliage.evaluation.heads import Misfit

FILE = "calibration.json"  # in a model's folder, it is applied wherever the model is evaluated


@dataclass(frozen=True, slots=True)
class SavedRepair:
    """A repair and what it was fitted to.

    Attributes:
        repair: of probabilities in the order of `labels`.
        labels: of the task; none where answers are choices.
        kind: of the task.
        task: its name.
        split: the part it was fitted on.
        examples: how many those were.
        model: reference, and the SHA-256 of each weight and configuration file.
    """

    repair: Repair
    labels: tuple[str, ...]
    kind: str
    task: str
    split: str
    examples: int
    model: Mapping[str, Any]

    def fits(self, task: Task) -> bool:
        """Whether a task asks for the same labels, in any order."""
        same = set(self.labels) == set(task.labels) and len(self.labels) == len(task.labels)
        return same and self.kind == task.kind

    def was_fitted_on(self, task: Task, split: str) -> bool:
        """Whether these are the examples, by their names, that the repair was fitted to."""
        return (self.task, self.split) == (task.name, split)

    def apply(self, task: Task, answers: Answers) -> Answers:
        """Answers with repaired probabilities, as logits.

        Raises:
            Misfit: the task has other labels.
        """
        if not self.fits(task):
            what = f"the repair was fitted on {self.task} ({self.kind}), which has other labels."
            raise Misfit(Problem(task.name, what, f"Fit one: alliage calibrate --task {task.name}"))
        order = [task.labels.index(label) for label in self.labels]
        probabilities = answers.probabilities
        if order:
            repaired = np.empty_like(probabilities)
            repaired[:, order] = self.repair.apply(probabilities[:, order])
        else:
            repaired = self.repair.apply(probabilities)
        with np.errstate(divide="ignore"):
            return replace(answers, logits=np.log(repaired))

    def is_of(self, checkpoint: Checkpoint) -> bool:
        """Whether a model has the weights that the repair was fitted to."""
        return _weights(provenance.describe_input("model", checkpoint)) == _weights(self.model)

    def write(self, out: Path) -> None:
        """Write the file; it appears when whole."""
        document = {
            "repair": self.repair.to_json(),
            "labels": list(self.labels),
            "kind": self.kind,
            "task": self.task,
            "split": self.split,
            "examples": self.examples,
            "model": self.model,
            "alliage": alliage.__version__,
        }
        partial = out.with_name(f".{out.name}.{os.getpid()}")
        partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
        partial.replace(out)


def read_repair(path: Path) -> SavedRepair:
    """Read what `SavedRepair.write` wrote.

    Raises:
        UsageError: no such file.
        AlliageError: the file is of no repair.
    """
    if not path.is_file():
        raise UsageError(Problem(str(path), "does not exist.", "alliage calibrate writes it."))
    content = read_json(path)
    fix = "Fit it anew with alliage calibrate."
    if not isinstance(content.get("repair"), dict):
        raise AlliageError(Problem(str(path), "holds no repair.", fix))
    try:
        return SavedRepair(
            repair_from_json(content["repair"]),
            tuple(map(str, content["labels"])),
            str(content["kind"]),
            str(content["task"]),
            str(content["split"]),
            int(content["examples"]),
            {"ref": content["model"]["ref"], "files": list(content["model"]["files"])},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
        raise AlliageError(Problem(str(path), f"{what.rstrip('.?')}.", fix)) from None


def find_repair(
    checkpoint: Checkpoint, path: Path | None
) -> tuple[SavedRepair | None, Problem | None]:
    """The repair in a file, or else the one in the model's folder, if there is one.

    Returns:
        the repair, and why the one in the model's folder was passed over, where it was: the model
        has changed since.

    Raises:
        UsageError: no such file, or one that was fitted to other weights.
        AlliageError: the file is of no repair.
    """
    beside = checkpoint.folder / FILE if checkpoint.folder is not None else None
    if path is not None:
        saved = read_repair(path)
        if not saved.is_of(checkpoint):
            what = f"the repair was fitted to other weights, of {saved.model['ref']}."
            raise UsageError(Problem(checkpoint.ref, what, "Fit it anew with alliage calibrate."))
        return saved, None
    if beside is None or not beside.is_file():
        return None, None
    saved = read_repair(beside)
    if saved.is_of(checkpoint):
        return saved, None
    what = "was fitted to other weights than the model has now, and is not applied."
    again = f"alliage calibrate {checkpoint.ref} --task TASK --repair {saved.repair.name}"
    return None, Problem(str(beside), what, f"Remove it, and fit it anew: {again} -o {beside}")


def _weights(model: Mapping[str, Any]) -> set[str]:
    files = [entry for entry in model["files"] if has_weight_ending(entry["file"])]
    return {entry["sha256"] for entry in files}
