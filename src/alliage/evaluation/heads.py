"""Which output layer answers a task, and in which order its outputs mean the task's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.labels import config_labels, head_outputs, named
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.reference import HEADS, read_json
from alliage.data import Task
from alliage.errors import AlliageError, Problem, nearest


class Misfit(AlliageError):
    """The model is sound, but cannot answer this task."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a task's output layer comes from.

    Attributes:
        home: the body's own files, an adapter's file, or head.safetensors beside a merged body.
        labels: their names in the order of the outputs, or nothing where nobody recorded them.
        outputs: how many there are.
    """

    home: Literal["body", "adapter"] | Path
    labels: tuple[str, ...] | None
    outputs: int


def own_tasks(checkpoint: Checkpoint, tasks: Sequence[Task]) -> list[Task]:
    """Of several tasks, those that a model was made for.

    A model that records one of them by name answers that one, not another with the same labels; any
    other model may answer them all, as far as its labels fit.
    """
    record = (provenance.read(checkpoint.folder) if checkpoint.folder else None) or {}
    named = [task for task in tasks if task.name == record.get("task")]
    return named or list(tasks)


def choose_head(checkpoint: Checkpoint, task: Task, wanted: str | None) -> Head:
    """The head to answer a task with: the wanted one, the one that records the task, the only one.

    Raises:
        Misfit: there is none, or several and none records the task.
    """
    heads = _heads_beside(checkpoint)
    if wanted is not None and wanted not in heads:
        raise Misfit(
            Problem(f"{checkpoint.ref}: {wanted}", "no such head.", nearest(wanted, heads))
        )
    chosen = wanted or next(
        (name for name, content in heads.items() if content.get("task") == task.name), None
    )
    if chosen is not None:
        labels = heads[chosen].get("labels")
        assert checkpoint.folder is not None
        return Head(
            checkpoint.folder / HEADS / chosen / "head.safetensors",
            named(labels),
            len(labels) if labels else int(heads[chosen]["num_labels"]),
        )
    own = _own_head(checkpoint)
    if own is None and checkpoint.adapter is not None:
        own = _own_head(base_of(checkpoint))
    if own is not None:
        return own
    if heads:
        listed = ", ".join(f"{name} ({content.get('task')})" for name, content in heads.items())
        raise Misfit(
            Problem(
                checkpoint.ref,
                f"none of its heads records the task {task.name!r}: {listed}.",
                "Name the one to use with --head.",
            )
        )
    raise Misfit(Problem(checkpoint.ref, "has no head: a body only.", "Tune it on the task first."))


def _own_head(checkpoint: Checkpoint) -> Head | None:
    """The head in the model's own files."""
    names = checkpoint.adapter_saved if checkpoint.adapter is not None else checkpoint.specs()
    stored = sorted(name for name in names if is_task_head(name))
    if not stored:
        return None
    record = (provenance.read(checkpoint.folder) if checkpoint.folder else None) or {}
    recorded = record.get("labels")
    labels = tuple(recorded) if recorded else config_labels(checkpoint.config)
    kind: Literal["body", "adapter"] = "body" if checkpoint.adapter is None else "adapter"
    files = {name: checkpoint.adapter_saved.get(name, name) for name in stored}
    shapes = {name: checkpoint.specs()[file].shape for name, file in files.items()}
    return Head(kind, labels, head_outputs(shapes))


def _heads_beside(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    if checkpoint.folder is None:
        return {}
    folder = checkpoint.folder / HEADS
    return {file.parent.name: read_json(file) for file in sorted(folder.glob("*/head.json"))}


def match_labels(checkpoint: Checkpoint, task: Task, head: Head) -> tuple[int, ...]:
    """For each of the task's labels, the output that stands for it; of regression the only one.

    Raises:
        Misfit: other labels, or another number of them.
    """
    if task.kind == "regression":
        if head.outputs != 1:
            raise Misfit(
                Problem(
                    f"{checkpoint.ref} on {task.name}",
                    f"the model has {head.outputs} outputs, a regression one.",
                )
            )
        return (0,)
    if head.labels is None:
        if head.outputs != len(task.labels):
            raise Misfit(
                Problem(
                    f"{checkpoint.ref} on {task.name}",
                    f"the model has {head.outputs} outputs, the task {len(task.labels)} labels.",
                )
            )
        return tuple(range(head.outputs))
    if set(head.labels) != set(task.labels) or len(head.labels) != len(task.labels):
        raise Misfit(
            Problem(
                f"{checkpoint.ref} on {task.name}",
                f"the model decides between {_listed(head.labels)}, "
                f"the task between {_listed(task.labels)}.",
                "Name the task's labels as the model does, in a YAML file under labels.",
            )
        )
    return tuple(head.labels.index(label) for label in task.labels)


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:8]) + (f" … ({len(labels)})" if len(labels) > 8 else "")


def base_of(checkpoint: Checkpoint) -> Checkpoint:
    """The model that an adapter adapts.

    Raises:
        AlliageError: it names none.
    """
    if checkpoint.base is None:
        raise AlliageError(
            Problem(
                checkpoint.ref, "is an adapter that names no base.", "Edit adapter_config.json."
            )
        )
    return open_checkpoint(checkpoint.base)
