"""What every kind of statistics begins with: a model, its data, and its layers by their names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.statistics import Origin, StatisticsKind, describe_model
from alliage.checkpoints.writer import TensorWriter, refuse_existing
from alliage.data import Example, Task, load_task
from alliage.data.task import GENERATIVE
from alliage.errors import AlliageError, Problem, UsageError
from alliage.evaluation.answers import chunks
from alliage.evaluation.heads import base_of
from alliage.evaluation.models import Classifier, load_classifier
from alliage.evaluation.scoring import labelled
from alliage.statistics.inputs import input_size, is_transposed, linear_layers, same_lengths
from alliage.statistics.names import sources

OnEvent = Callable[[str, int, int], None]

EXAMPLES = 256  # as the papers take


@dataclass(frozen=True, slots=True)
class StatisticsRecord:
    """What was collected.

    Attributes:
        out: the file.
        kind: of the statistics.
        model: reference.
        task, split, examples: the data.
        labels: of the Fisher information, how its expectation was taken.
        tensors: how many weights it speaks of.
        without: weights of the model that it says nothing of.
        passes: over the data.
        seconds: of all of it.
    """

    out: Path
    kind: StatisticsKind
    model: str
    task: str
    split: str
    examples: int
    labels: str
    tensors: int
    without: int
    passes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model and the data it is run on.

    Attributes:
        checkpoint: the model's files.
        body: those that name its weights: of an adapter, its base's.
        classifier: encodes the examples.
        model: in evaluation mode, an adapter merged into its weights.
        task, split: of the examples.
        examples: the data.
    """

    checkpoint: Checkpoint
    body: Checkpoint
    classifier: Classifier
    model: Any
    task: Task
    split: str
    examples: Sequence[Example]

    @property
    def shift(self) -> bool:
        """Whether a position predicts the token after it."""
        writes = self.task.kind in GENERATIVE
        return writes and not self.model.config.is_encoder_decoder

    def batches(self, batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
        """The examples in batches that need no padding."""
        encoder = self.classifier.encoder
        for _, chunk in chunks(self.classifier, self.examples, batch_size):
            encoded = encoder.encode(chunk)
            for chosen in same_lengths(encoded, batch_size):
                yield encoder.collate([encoded[index] for index in chosen])

    def origin(self, kind: StatisticsKind, **more: Any) -> Origin:
        """For the file's metadata."""
        base = None if self.body is self.checkpoint else self.body
        models = describe_model(self.checkpoint, base)
        return Origin(kind, self.task.name, self.split, len(self.examples), models, **more)

    def record(
        self, out: Path, origin: Origin, names: int, passes: int, started: float
    ) -> StatisticsRecord:
        """What is said of a file that speaks of so many weights."""
        weights = sum(
            spec.is_weight and name not in self.body.ties
            for name, spec in self.body.specs().items()
        )
        return StatisticsRecord(
            out, origin.kind, self.checkpoint.ref, origin.task, origin.split, origin.examples,
            origin.labels, names, weights - names, passes, time.perf_counter() - started,
        )  # fmt: skip


def prepare(
    checkpoint: Checkpoint,
    task: str | Path | Task,
    *,
    split: str,
    examples: int | None,
    head: str | None,
    device: str,
) -> Prepared:
    """Load a model with the head for a task, and the task's examples."""
    loaded = task if isinstance(task, Task) else load_task(task)
    chosen = labelled(loaded, split, examples)
    classifier = load_classifier(checkpoint, loaded, head=head)
    model: Any = classifier.model
    body = checkpoint
    if checkpoint.adapter is not None:
        body = base_of(checkpoint)
        model = model.merge_and_unload()
    return Prepared(
        checkpoint, body, classifier, model.eval().to(device), loaded, split, chosen
    )  # fmt: skip


def of_layers(ready: Prepared) -> tuple[dict[str, torch.nn.Module], dict[str, str]]:
    """The linear layers that the files know; and weight in the files -> layer.

    Raises:
        AlliageError: there are none.
    """
    layers = linear_layers(ready.model)
    homes = {
        name: parameter.removesuffix(".weight")
        for name, parameter in sources(ready.model, ready.body).items()
        if parameter.endswith(".weight") and parameter.removesuffix(".weight") in layers
    }
    if not homes:
        raise AlliageError(Problem(ready.checkpoint.ref, "has no linear layers."))
    return {name: layers[name] for name in dict.fromkeys(homes.values())}, homes


def sizes(layers: Mapping[str, torch.nn.Module], homes: Mapping[str, str]) -> dict[str, int]:
    """Weight in the files -> d_in."""
    return {name: input_size(layers[layer]) for name, layer in homes.items()}


def transposed(layers: Mapping[str, torch.nn.Module], homes: Mapping[str, str]) -> list[str]:
    """Weights that are stored as [in, out]."""
    return [name for name, layer in homes.items() if is_transposed(layers[layer])]


def write_tensor(writer: TensorWriter, name: str, tensor: torch.Tensor) -> None:
    """A whole float32 tensor."""
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    writer.write(name, 0, memoryview(raw.data).cast("B") if raw.size else memoryview(b""))


class Progress:
    """Counts examples as batches pass."""

    def __init__(self, on_event: OnEvent | None, stage: str, total: int) -> None:
        self._notify = partial(on_event, stage) if on_event is not None else None
        self._done, self._total = 0, total

    def __call__(self, count: int) -> None:
        """Count so many more."""
        self._done += count
        if self._notify is not None:
            self._notify(self._done, self._total)


def place_for(out: str | Path) -> Path:
    """Where a file of statistics goes.

    Raises:
        UsageError: it exists, or its name is of something else.
    """
    place = Path(out)
    if place.suffix != ".safetensors":
        what = "statistics are a .safetensors file."
        raise UsageError(Problem(str(out), what, f"Write {place.stem}.safetensors."))
    refuse_existing(place)
    return place
