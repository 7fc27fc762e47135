"""Signs of a task vector, saved to a file that TIES takes in place of an election.

Of a multi-task model they are the oracle of arXiv:2306.01708, section 7.4; of a model tuned on a
few examples of every task, the estimate of its appendix B.1; of a merge, what it elected.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alliage import vectors
from alliage.checkpoints import provenance
from alliage.checkpoints.signs import INPUTS, signs_layout
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import one_file, refuse_existing
from alliage.errors import AlliageError, Problem, UsageError
from alliage.threads import one_torch_thread

if TYPE_CHECKING:
    from torch import Tensor

    from alliage.checkpoints import Checkpoint
    from alliage.vectors import Vector

OnEvent = Callable[[str, int, int], None]

_BLOCK = 2**20  # elements looked at together


@dataclass(frozen=True, slots=True)
class SignsRecord:
    """What was saved.

    Attributes:
        out: the new file.
        positive, negative, zero: how many parameters have that sign.
        bytes_written: of the file.
        seconds: that it took.
    """

    out: Path
    positive: int
    negative: int
    zero: int
    bytes_written: int
    seconds: float


def signs(
    model: str | Path,
    *,
    out: str | Path,
    base: str | Path | None = None,
    on_event: OnEvent | None = None,
) -> SignsRecord:
    """Save sgn(θ_model − θ_base) as int8, block by block.

    Args:
        model: a full model, an adapter, or what was merged.
        out: the new file, NAME.safetensors.
        base: what it was tuned or merged from; an adapter may name it itself.
        on_event: called with (stage, done, total) as the work goes on.

    Raises:
        UsageError: no base is known, or `out` exists or is no name for such a file.
        AlliageError: the two do not fit together, or hold NaN or infinity; every misfit.
    """
    started = time.perf_counter()
    place = place_for(out)
    vector = vectors.open(model, base)
    metadata = {"alliage.signs": vector.name, INPUTS: inputs_of(vector.base, [vector])}
    return write_signs(place, vector.shapes, vector.block, metadata, str(model), started, on_event)


def inputs_of(base: Checkpoint, vectors: Iterable[Vector]) -> str:
    """What signs were counted from, for the header of their file."""
    sources = [(f"model {vector.name}", each) for vector in vectors for each in vector.checkpoints]
    return json.dumps([provenance.describe_input(*each) for each in [("base", base), *sources]])


def place_for(out: str | Path) -> Path:
    """Where a file of signs goes.

    Raises:
        UsageError: it exists, or its name is of something else.
    """
    place = local_destination(out)
    if place.suffix != ".safetensors":
        fix = "Name it NAME.safetensors."
        raise UsageError(Problem(str(out), "is no name for a file of signs.", fix))
    refuse_existing(place)
    return place


def write_signs(
    place: Path,
    shapes: Mapping[str, tuple[int, ...]],
    block: Callable[[str, int, int], Tensor],
    metadata: Mapping[str, str],
    where: str,
    started: float,
    on_event: OnEvent | None = None,
) -> SignsRecord:
    """Write the signs of a task vector.

    Args:
        place: from `place_for`.
        shapes: of its parameters.
        block: elements [start, stop) of a parameter's delta.
        metadata: of the file.
        where: the model's name, for errors.
        started: when the work began, by `time.perf_counter`.
        on_event: called with ("signs", done, total).

    Raises:
        AlliageError: NaN or infinity; each parameter that holds some.
    """
    notify = on_event or (lambda *_: None)
    layout = signs_layout(shapes, metadata)
    positive = negative = 0
    problems = []
    with one_torch_thread(), one_file(place, layout) as writer:
        for done, (name, shape) in enumerate(shapes.items(), start=1):
            numel = math.prod(shape)
            for start in range(0, numel, _BLOCK):
                delta = block(name, start, min(start + _BLOCK, numel))
                if not delta.isfinite().all():
                    problems.append(Problem(f"{where}: {name}", "holds NaN or infinity."))
                    break
                positive += int((delta > 0).sum())
                negative += int((delta < 0).sum())
                found = delta.sign().char()  # int8
                writer.write(name, start, found.numpy().data.cast("B"))
            notify("signs", done, len(shapes))
        if problems:
            raise AlliageError(problems)
    zero = sum(map(math.prod, shapes.values())) - positive - negative
    seconds = time.perf_counter() - started
    return SignsRecord(place, positive, negative, zero, layout.nbytes, seconds)
