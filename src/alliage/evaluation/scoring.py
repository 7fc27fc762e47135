"""Running a model over tasks and scoring what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.names import layer_of
from alliage.data import Example, Task, load_task
from alliage.data.encoding import IGNORED
from alliage.errors import AlliageError, Problem
from alliage.evaluation.calibration import expected_calibration_error, reliability
from alliage.evaluation.metrics import classification_metrics, entity_metrics
from alliage.evaluation.models import Classifier, load_classifier
from alliage.evaluation.scores import Scores, TaskScores

OnEvent = Callable[[str, int, int], None]

BINS = 15  # of confidence, as in arXiv:1706.04599


def evaluate(
    model: str | Path | Checkpoint,
    tasks: str | Path | Task | Sequence[str | Path | Task],
    *,
    head: str | None = None,
    split: str = "validation",
    limit: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    on_event: OnEvent | None = None,
) -> Scores:
    """Score a model on labelled data.

    Metrics: accuracy, macro F1, Matthews correlation and, of two labels, F1 of the second; of
    entities precision, recall and F1 instead. "ece" is the calibration error of the top label's
    probability in 15 bins. Tokens beyond the model's longest text are not scored.

    Args:
        model: a classifier, an adapter or a merged body with heads: see
            `alliage.evaluation.models.load_classifier`.
        tasks: one or several: see `alliage.data.load_task`.
        head: of a merged model, the parent whose head to use.
        split: train, validation or test.
        limit: score a random part of at most so many examples, the same each time.
        batch_size: examples in one pass.
        device: "cpu" or "cuda".
        on_event: called with (stage, done, total).

    Raises:
        UsageError: no such model, task or split.
        Misfit: the model's labels are not the task's.
        AlliageError: damaged files, or a model that answers NaN.
    """
    wanted = [tasks] if isinstance(tasks, str | Path | Task) else tasks
    loaded = [task if isinstance(task, Task) else load_task(task) for task in wanted]
    examples = [task.examples(split, limit=limit) for task in loaded]
    notify = on_event or (lambda *_: None)
    with open_checkpoint(model) as checkpoint:
        scores = []
        for task, chosen in zip(loaded, examples, strict=True):
            classifier = load_classifier(checkpoint, task, head=head)
            on_batch = partial(notify, f"{checkpoint.name} on {task.name}")
            scores.append(_score(classifier, task, split, chosen, batch_size, device, on_batch))
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


def predict(
    classifier: Classifier,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    device: str = "cpu",
    on_event: Callable[[int, int], None] | None = None,
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]]]:
    """Probabilities and true labels of examples, in their order.

    Returns:
        for each example probabilities [k, labels], in the task's order of labels, and labels [k];
        k is 1, or the number of tokens of a sentence.

    Raises:
        AlliageError: the model answers NaN.
    """
    encoded = classifier.encoder.encode(examples)
    # Texts of like length together: less padding.
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].get("input_ids", ())))
    probabilities: list[Any] = [None] * len(encoded)
    labels: list[Any] = [None] * len(encoded)
    model = classifier.model.to(device)
    columns = torch.tensor(classifier.columns, device=device)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = classifier.encoder.collate([encoded[index] for index in chosen])
        truth = batch.pop("labels").reshape(len(chosen), -1)
        with torch.inference_mode():
            logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits
        logits = logits.reshape(len(chosen), truth.shape[1], -1)[..., columns]
        if not logits.isfinite().all():
            raise AlliageError(Problem("model", "answers NaN or infinity.", "Inspect its weights."))
        shares = logits.double().softmax(dim=-1).cpu()
        for row, index in enumerate(chosen):
            seen = truth[row] != IGNORED
            probabilities[index] = shares[row][seen].numpy()
            labels[index] = truth[row][seen].numpy()
        if on_event is not None:
            on_event(min(start + batch_size, len(order)), len(order))
    return probabilities, labels


def _score(
    classifier: Classifier,
    task: Task,
    split: str,
    examples: Sequence[Example],
    batch_size: int,
    device: str,
    on_event: Callable[[int, int], None],
) -> TaskScores:
    started = time.perf_counter()
    probabilities, labels = predict(
        classifier, examples, batch_size=batch_size, device=device, on_event=on_event
    )
    seconds = time.perf_counter() - started
    shares, truth = np.concatenate(probabilities), np.concatenate(labels)
    predicted = shares.argmax(axis=1)
    confidences, correct = shares.max(axis=1), predicted == truth
    metrics = (
        entity_metrics(_tags(task, labels), _tags(task, [p.argmax(axis=1) for p in probabilities]))
        if task.has_entities
        else classification_metrics(truth, predicted, len(task.labels))
    )
    metrics["ece"] = expected_calibration_error(confidences, correct, BINS)
    return TaskScores(
        task=task.name,
        split=split,
        metrics=metrics,
        examples=len(examples),
        seconds=seconds,
        reliability=tuple(reliability(confidences, correct, BINS)),
    )


def _tags(task: Task, sentences: Sequence[NDArray[np.int64]]) -> list[list[str]]:
    return [[task.labels[tag] for tag in sentence] for sentence in sentences]
