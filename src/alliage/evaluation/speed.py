"""How long a model takes to answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from alliage.data import Example
from alliage.evaluation.models import Classifier

_WARM_UP = 3  # passes that are not counted: memory, caches and kernels are got ready in them
_PASSES = 30
_SECONDS = 10.0  # after which fewer passes do, but never fewer than _FEWEST
_FEWEST = 5


class Speed(NamedTuple):
    """The time of one pass of the model over a batch that is encoded already.

    Attributes:
        device: cpu, or the GPU's name.
        threads: of torch.
        batch: examples in a pass; of 1 the time is the latency.
        passes: measured.
        low, median, high: seconds of a pass, its quartiles.
        throughput: examples in a second, at the median.
    """

    device: str
    threads: int
    batch: int
    passes: int
    low: float
    median: float
    high: float
    throughput: float


def measure_speed(
    classifier: Classifier, examples: Sequence[Example], batch_size: int, *, device: str = "cpu"
) -> tuple[Speed, Speed]:
    """Latency, one example at a time, and throughput, a batch at a time.

    Examples are taken in their order, so that their lengths are the data's own; of language models,
    a pass reads source and expected text.

    Args:
        classifier: to be measured.
        examples: to go through, again from the start where they are too few.
        batch_size: of the throughput; fewer where there are fewer examples.
        device: "cpu" or "cuda".
    """
    return (
        _measure(classifier, examples, 1, device),
        _measure(classifier, examples, min(batch_size, len(examples)), device),
    )


def _measure(
    classifier: Classifier, examples: Sequence[Example], batch_size: int, device: str
) -> Speed:
    model = classifier.model.to(device)
    count = max(1, min(_PASSES, len(examples) // batch_size))
    batches = []
    for index in range(count):
        chunk = examples[index * batch_size : (index + 1) * batch_size]
        batch = classifier.encoder.collate(classifier.encoder.encode(chunk))
        if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            batch.pop("labels")
        batches.append({name: tensor.to(device) for name, tensor in batch.items()})
    seconds: list[float] = []
    begun = time.perf_counter()
    for number in range(_WARM_UP + _PASSES):
        _wait(device)
        started = time.perf_counter()
        with torch.inference_mode():
            model(**batches[number % count])
        _wait(device)
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - started)
        if len(seconds) >= _FEWEST and time.perf_counter() - begun > _SECONDS:
            break
    low, median, high = (float(value) for value in np.quantile(seconds, [0.25, 0.5, 0.75]))
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return Speed(
        name, torch.get_num_threads(), batch_size, len(seconds), low, median, high,
        batch_size / median,
    )  # fmt: skip


def _wait(device: str) -> None:
    """A GPU answers before it is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
