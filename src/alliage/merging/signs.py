"""Signs of a task vector, saved to a file that TIES takes in place of an election.

Of a multi-task model they are the oracle of arXiv:2306.01708, section 7.4; of a model tuned on a
few examples of every task, the estimate of its appendix B.1; of a merge, what it elected.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alliage import vectors
from alliage.checkpoints import provenance
from alliage.checkpoints.signs import signs_layout
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import one_file, refuse_existing
from alliage.errors import AlliageError, Problem, UsageError
from alliage.threads import one_torch_thread

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
    place = local_destination(out)
    if place.suffix != ".safetensors":
        fix = "Name it NAME.safetensors."
        raise UsageError(Problem(str(out), "is no name for a file of signs.", fix))
    refuse_existing(place)
    notify = on_event or (lambda *_: None)
    vector = vectors.open(model, base)
    sources = [("base", vector.base), *((vector.name, each) for each in vector.checkpoints)]
    inputs = [provenance.describe_input(role, checkpoint) for role, checkpoint in sources]
    metadata = {"alliage.signs": vector.name, "alliage.inputs": json.dumps(inputs)}
    layout = signs_layout(vector.shapes, metadata)
    positive = negative = 0
    problems = []
    with one_torch_thread(), one_file(place, layout) as writer:
        for done, (name, shape) in enumerate(vector.shapes.items(), start=1):
            numel = math.prod(shape)
            for start in range(0, numel, _BLOCK):
                delta = vector.block(name, start, min(start + _BLOCK, numel))
                if not delta.isfinite().all():
                    problems.append(Problem(f"{model}: {name}", "holds NaN or infinity."))
                    break
                positive += int((delta > 0).sum())
                negative += int((delta < 0).sum())
                found = delta.sign().char()  # int8
                writer.write(name, start, found.numpy().data.cast("B"))
            notify("signs", done, len(vector.shapes))
        if problems:
            raise AlliageError(problems)
    zero = sum(map(math.prod, vector.shapes.values())) - positive - negative
    seconds = time.perf_counter() - started
    return SignsRecord(place, positive, negative, zero, layout.nbytes, seconds)
