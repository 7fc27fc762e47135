"""What a run cost: time, steps, parameters, memory, and how its losses went."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

FILE = "training.json"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A look at the validation split.

    Attributes:
        step: of the optimiser, after which it was.
        epoch: likewise.
        loss: mean validation loss.
    """

    step: int
    epoch: float
    loss: float


@dataclass(frozen=True, slots=True)
class TuneRecord:
    """What a run did. Interrupted runs that it went on from count.

    Attributes:
        out: the new model or adapter.
        task: its name.
        method: full, lora or ia3.
        seconds: of the training itself, validation included.
        steps: of the optimiser.
        examples_per_second: trained on.
        trained: parameters that were free to move.
        parameters: of the whole model.
        loss: mean training loss over the run.
        evaluations: looks at the validation loss, in their order.
        fisher_trace: rows of step, epoch, layer, parameters, trace and standard_error, where the
            recipe asks for them.
        truncated: examples, of training and validation, that were cut at the longest length.
        notes: what was noticed of the data: splits that were cut, labels that are hidden.
        peak_memory: bytes of memory that the process held at most since it began.
        peak_gpu_memory: bytes of the GPU's memory that tensors held at most; None without one.
    """

    out: Path
    task: str
    method: str
    seconds: float
    steps: int
    examples_per_second: float
    trained: int
    parameters: int
    loss: float
    evaluations: tuple[Evaluation, ...]
    fisher_trace: tuple[dict[str, Any], ...]
    truncated: int
    notes: tuple[str, ...]
    peak_memory: int
    peak_gpu_memory: int | None

    @property
    def best_loss(self) -> float:
        """The lowest validation loss; NaN where nobody looked."""
        return min((evaluation.loss for evaluation in self.evaluations), default=float("nan"))

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, with their units in their names."""
        return {
            "task": self.task,
            "method": self.method,
            "seconds": self.seconds,
            "steps": self.steps,
            "examples_per_second": self.examples_per_second,
            "parameters_trained": self.trained,
            "parameters": self.parameters,
            "training_loss": self.loss,
            "validation": [asdict(evaluation) for evaluation in self.evaluations],
            "examples_truncated": self.truncated,
            "notes": list(self.notes),
            "peak_memory_bytes": self.peak_memory,
            "peak_gpu_memory_bytes": self.peak_gpu_memory,
        }


def watch_gpu() -> None:
    """Begin anew to measure how much of the GPU's memory tensors hold."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int:
    """Bytes of memory that this process held at most since it began."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_gpu_memory() -> int | None:
    """Bytes of the GPU's memory that tensors held at most since `watch_gpu`; None without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
