"""Files of signs: −1, 0 or 1 for every parameter, as int8 under the tensors' names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.writer import NEVER_SHARD, Layout, plan_layout
from alliage.errors import AlliageError, Problem

DTYPE = "I8"
INPUTS = "alliage.inputs"  # in the header: what they were counted from, as in alliage.json


def signs_layout(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> Layout:
    """The one file of signs for parameters of some shapes."""
    tensors = [(name, DTYPE, shape) for name, shape in shapes.items()]
    return plan_layout(tensors, stem="signs", max_shard_bytes=NEVER_SHARD, metadata=metadata)


def open_signs(ref: str | Path) -> Checkpoint:
    """Open a file of signs, ours or anybody's.

    Raises:
        UsageError: nothing of that name.
        AlliageError: it holds anything but int8.
    """
    file = open_checkpoint(ref)
    others = [spec for spec in file.specs().values() if spec.dtype != DTYPE]
    if others or not file.specs():
        file.close()
        what = f"{others[0]} is no sign: expected int8." if others else "holds no signs."
        raise AlliageError(Problem(str(ref), what, "Save signs with `alliage signs`."))
    return file
