"""Running a model over examples: what it answers, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from alliage.data import Example
from alliage.data.encoding import IGNORED
from alliage.data.task import GENERATIVE
from alliage.errors import AlliageError, Problem, brief
from alliage.evaluation.models import Classifier

# Batches that are encoded at once, so that texts of like length can meet.
_BATCHES = 64
_GENERATIVE_BATCHES = 4

OnBatch = Callable[[int, int], None]


@dataclass(frozen=True)
class Answers:
    """What a model answers to the examples of a split, in their order.

    Attributes:
        logits: [n, labels] in the task's order of labels, [n, 1] of regression, or the scores of
            choices, −∞ where an example has fewer; n decisions, several to a sentence. float32
            from a model, float64 after a repair.
        truth: [n], indices of labels or choices, or numbers.
        examples: [n], the example of each decision, counted from 0.
        count: of examples.
        domains: of each example, [count]; none where the task does not tell them.
    """

    logits: NDArray[np.floating[Any]]
    truth: NDArray[Any]
    examples: NDArray[np.int64]
    count: int
    domains: tuple[str, ...] = ()

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, [n, labels]."""
        return np.asarray(softmax(self.logits.astype(np.float64), axis=1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The label of the highest logit, [n]; the first of equal ones."""
        return np.asarray(self.logits.argmax(axis=1), np.int64)

    def by_example(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Values [n] cut into the examples they belong to."""
        return np.split(values, np.searchsorted(self.examples, np.arange(1, self.count)))


def predict(
    classifier: Classifier,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    device: str = "cpu",
    on_event: OnBatch | None = None,
) -> Answers:
    """Ask a classifier, or a regression, for its answers.

    Only some batches' worth of examples are encoded at a time.

    Raises:
        AlliageError: NaN or infinite answers, or labels that the task does not have; the first
            example of either.
    """
    model = classifier.model.to(device)
    by_token = classifier.kind == "token-classification"
    columns = torch.tensor(classifier.columns, device=device)
    logits: list[NDArray[np.float32]] = []
    truth: list[NDArray[Any]] = []
    domains: list[str | None] = []
    done = 0
    for start, chunk in chunks(classifier, examples, batch_size):
        domains += [example.domain for example in chunk]
        encoded = classifier.encoder.encode(chunk)
        found: list[Any] = [None] * len(encoded)
        labels: list[Any] = [None] * len(encoded)
        for chosen in batches(encoded, batch_size):
            batch = classifier.encoder.collate([encoded[index] for index in chosen])
            given = batch.pop("labels").reshape(len(chosen), -1)
            inputs = {name: tensor.to(device) for name, tensor in batch.items()}
            with torch.inference_mode():
                answer = model(**inputs).logits.float()
            answer = answer.reshape(len(chosen), given.shape[1], -1)[..., columns].cpu()
            for row, index in enumerate(chosen):
                seen = given[row] != IGNORED if by_token else slice(None)
                found[index], labels[index] = answer[row][seen].numpy(), given[row][seen].numpy()
            done += len(chosen)
            if on_event is not None:
                on_event(done, len(examples))
        for index, example in enumerate(chunk):
            _check(classifier, found[index], labels[index], start + index, example)
        logits += found
        truth += labels
    counts = [len(labels) for labels in truth]
    return Answers(
        np.concatenate(logits),
        np.concatenate(truth),
        np.repeat(np.arange(len(counts)), counts),
        len(counts),
        told(domains),
    )


def told(domains: Sequence[str | None]) -> tuple[str, ...]:
    """The domains of all examples; none where some have none."""
    known = tuple(domain for domain in domains if domain is not None)
    return known if len(known) == len(domains) else ()


def chunks(
    classifier: Classifier, examples: Sequence[Example], batch_size: int
) -> Iterator[tuple[int, Sequence[Example]]]:
    """Examples that are encoded at once, with the index of the first: images by the batch."""
    kind = classifier.kind
    many = _GENERATIVE_BATCHES if kind in GENERATIVE else _BATCHES
    size = batch_size * (1 if kind == "image-classification" else many)
    for start in range(0, len(examples), size):
        yield start, examples[start : start + size]


def batches(encoded: Sequence[Any], batch_size: int) -> Iterator[list[int]]:
    """Indices of encoded examples, those of like length together: less padding."""
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].get("input_ids", ())))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _check(
    classifier: Classifier,
    logits: NDArray[Any],
    truth: NDArray[Any],
    index: int,
    example: Example,
) -> None:
    shown = f" {brief(example.inputs)}" if isinstance(example.inputs, tuple) else ""
    where = f"{classifier.name}: example {index + 1}{shown}"
    if not np.isfinite(logits).all():
        raise AlliageError(
            Problem(where, "the model answers NaN or infinity.", "Inspect its weights.")
        )
    if classifier.kind == "regression":
        return
    if truth.size and not 0 <= truth.min() <= truth.max() < len(classifier.columns):
        wrong = truth.min() if truth.min() < 0 else truth.max()
        raise AlliageError(
            Problem(where, f"label {wrong}, but the task has {len(classifier.columns)} labels.")
        )
