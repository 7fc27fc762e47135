"""Task vectors: a tuned model minus its base, in dense, low-rank and scaling form."""

from __future__ import annotations

from pathlib import Path

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as _open_checkpoint
from alliage.checkpoints.masks import holds_masks
from alliage.errors import Problem, UsageError
from alliage.vectors.dense import TaskVector
from alliage.vectors.expression import Term, parse_expression
from alliage.vectors.files import load, save
from alliage.vectors.low_rank import Factors, LowRankVector
from alliage.vectors.masked import MaskedVector
from alliage.vectors.scaling import ScalingVector
from alliage.vectors.vector import Combination, Vector
from alliage.vectors.whole import WholeModel

__all__ = [
    "Combination",
    "Factors",
    "LowRankVector",
    "MaskedVector",
    "ScalingVector",
    "TaskVector",
    "Term",
    "Vector",
    "WholeModel",
    "load",
    "open",
    "parse_expression",
    "save",
]


def open(  # noqa: A001
    ref: str | Path | Checkpoint,
    base: str | Path | Checkpoint | None = None,
    *,
    name: str | None = None,
) -> TaskVector | LowRankVector | ScalingVector | MaskedVector:
    """The task vector of a tuned model, in the form that its checkpoint has.

    Args:
        ref: a full model or an adapter, as `checkpoints.open` takes it, or a task's masks in a
            merged model's folder.
        base: its base; an adapter's may be left out where its settings name it.
        name: for tables; by default the folder's name.

    Raises:
        UsageError: no base is given and none is known.
        AlliageError: the two do not fit; every misfit.
    """
    tuned = _open_checkpoint(ref, base=base)
    origin = _open_checkpoint(base) if base is not None else tuned.base
    if origin is None:
        raise UsageError(Problem(tuned.ref, "no base given, and it names none.", "Give the base."))
    if holds_masks(tuned):
        return MaskedVector(origin, tuned, name=name)
    if tuned.adapter is None:
        return TaskVector(origin, tuned, name=name)
    form = LowRankVector if tuned.adapter.kind == "lora" else ScalingVector
    return form(origin, tuned, name=name)
