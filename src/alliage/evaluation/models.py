"""Loading what can answer a task: a full classifier, an adapter on its base, a body and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.labels import config_labels, head_outputs, named
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.reference import read_json
from alliage.data import Kind, Task
from alliage.data.encoding import Encoder, encoder_for
from alliage.errors import AlliageError, Problem, nearest
from alliage.evaluation.quiet import quiet_transformers
from alliage.merging.heads import FOLDER as HEADS


class Misfit(AlliageError):
    """The model is sound, but cannot answer this task."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model ready to answer one task.

    Attributes:
        model: in evaluation mode, float32; its output has `logits`.
        encoder: prepares examples for it.
        columns: for each of the task's labels, the column of the logits that stands for it.
    """

    model: torch.nn.Module
    encoder: Encoder
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Head:
    """Where a task's output layer comes from.

    Attributes:
        home: the body's own files, an adapter's file, or head.safetensors beside a merged body.
        labels: their names in the order of the outputs, or nothing where nobody recorded them.
        outputs: how many there are.
    """

    home: Literal["body", "adapter"] | Path
    labels: tuple[str, ...] | None
    outputs: int


def load_classifier(checkpoint: Checkpoint, task: Task, *, head: str | None = None) -> Classifier:
    """Load a model with the head for a task.

    Args:
        checkpoint: a full classifier, an adapter, or a merged body with its parents' heads in
            `heads/`; pruned or not.
        task: what it is to answer. The model's labels must be the task's, in any order; a model
            that names no labels must have as many.
        head: of a merged model, the parent whose head to use; by default the one that records the
            task's name.

    Raises:
        Misfit: no head for the task, or one with other labels.
        AlliageError: the files lack weights or cannot be loaded.
    """
    chosen = _choose_head(checkpoint, task, head)
    columns = _match_labels(checkpoint, task, chosen)
    body = checkpoint if checkpoint.adapter is None else _base_of(checkpoint)
    replaced: dict[str, torch.Tensor] | None = None if chosen.home == "body" else {}
    if isinstance(chosen.home, Path):
        with open_checkpoint(chosen.home) as file:
            replaced = {name: file.read(name) for name in file.specs()}
    labels = chosen.labels or tuple(f"LABEL_{index}" for index in range(chosen.outputs))
    model, missing = load_model(body, task.kind, labels, head=replaced)
    adapted = model
    if checkpoint.adapter is not None:
        from peft import PeftModel

        with quiet_transformers():
            adapted = PeftModel.from_pretrained(model, str(checkpoint.folder))
        missing -= set(checkpoint.adapter_saved)
    if missing:
        raise AlliageError(
            Problem(
                f"{checkpoint.ref}: {', '.join(sorted(missing)[:4])}",
                f"expected by {type(model).__name__}, but neither the model nor its head has it.",
            )
        )
    with_tokenizer = checkpoint if checkpoint.adapter is None or checkpoint.companions else body
    return Classifier(adapted.eval(), encoder_for(task.kind, with_tokenizer, model.config), columns)


def load_model(
    body: Checkpoint,
    kind: Kind,
    labels: Sequence[str],
    *,
    head: Mapping[str, torch.Tensor] | None = None,
) -> tuple[Any, set[str]]:
    """Build transformers' model of a kind in float32.

    Args:
        body: the weights, with or without a task head.
        kind: of the task.
        labels: of the head, in order.
        head: tensors by the names of files that stand for the body's own task head; none to
            start one afresh, from torch's global generator; nothing to keep the body's.

    Returns:
        the model, and the names of its parameters that nobody gave: they are initialised afresh.

    Raises:
        AlliageError: no configuration, an architecture without such a head, or tensors of other
            shapes than the configuration says.
    """
    from transformers import AutoConfig

    if body.config is None or body.folder is None:
        raise AlliageError(
            Problem(body.ref, "has no config.json beside its weights.", "Give the whole folder.")
        )
    given = {
        name: body.read(name) for name in body.specs() if head is None or not is_task_head(name)
    }
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(
                body.folder,
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
            )
            with torch.device("meta"):
                architecture = type(auto_class(kind).from_config(config))
            model, info = architecture.from_pretrained(
                None,
                config=config,
                state_dict=given | dict(head or {}),
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            raise AlliageError(
                Problem(body.ref, f"does not load for {kind}: {str(error).splitlines()[0]}")
            ) from None
    if kind != "image-classification" and config.pad_token_id is None:  # decoders
        model.config.pad_token_id = config.eos_token_id
    return model, set(info["missing_keys"])


def auto_class(kind: Kind) -> Any:
    """The class of transformers that loads any model of a kind."""
    import transformers

    return {
        "sequence-classification": transformers.AutoModelForSequenceClassification,
        "token-classification": transformers.AutoModelForTokenClassification,
        "image-classification": transformers.AutoModelForImageClassification,
    }[kind]


def _choose_head(checkpoint: Checkpoint, task: Task, wanted: str | None) -> _Head:
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
        return _Head(
            checkpoint.folder / HEADS / chosen / "head.safetensors",
            named(labels),
            len(labels) if labels else int(heads[chosen]["num_labels"]),
        )
    own = _own_head(checkpoint)
    if own is None and checkpoint.adapter is not None:
        own = _own_head(_base_of(checkpoint))
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


def _own_head(checkpoint: Checkpoint) -> _Head | None:
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
    return _Head(kind, labels, head_outputs(shapes))


def _heads_beside(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    if checkpoint.folder is None:
        return {}
    folder = checkpoint.folder / HEADS
    return {file.parent.name: read_json(file) for file in sorted(folder.glob("*/head.json"))}


def _match_labels(checkpoint: Checkpoint, task: Task, head: _Head) -> tuple[int, ...]:
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


def _base_of(checkpoint: Checkpoint) -> Checkpoint:
    if checkpoint.base is None:
        raise AlliageError(
            Problem(
                checkpoint.ref, "is an adapter that names no base.", "Edit adapter_config.json."
            )
        )
    return open_checkpoint(checkpoint.base)
