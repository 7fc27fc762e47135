"""Files of masks: which entries of a merged model's task vector one of its tasks keeps.

    MERGED/tasks/NAME.safetensors

One bit for an element, the first in the lowest bit of the first byte, as U8 [⌈elements/8⌉] under
the tensor's name; the scale as F64 under a name that no tensor has; the shapes in the metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.reference import HEADS
from alliage.checkpoints.remote import RemotePath
from alliage.checkpoints.writer import NEVER_SHARD, Layout, plan_layout
from alliage.errors import AlliageError, Problem

FOLDER = "tasks"
SCALE = "alliage.scale"
_TASK, _SHAPES = "alliage.task", "alliage.shapes"


def masks_layout(task: str, stem: str, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """The one file of a task's masks, `stem`.safetensors, for parameters of some shapes."""
    tensors = [(name, "U8", (-(-math.prod(shape) // 8),)) for name, shape in shapes.items()]
    metadata = {_TASK: task, _SHAPES: json.dumps(shapes, sort_keys=True)}
    return plan_layout(
        [*tensors, (SCALE, "F64", (1,))], stem=stem, max_shard_bytes=NEVER_SHARD, metadata=metadata
    )


def packed(chosen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Masks [..., m] as bytes [..., ⌈m/8⌉]."""
    return np.packbits(chosen, axis=-1, bitorder="little")


def holds_masks(file: Checkpoint) -> bool:
    """Whether a checkpoint is a file of masks, by its header."""
    return any(_TASK in source.metadata for source in file.sources)


class MaskFile:
    """A file of masks, read from its header.

    Attributes:
        file: it, open.
        task: whose they are.
        scale: what the kept entries are multiplied by.
        shapes: parameter -> its shape.
    """

    def __init__(self, file: Checkpoint) -> None:
        """Read the header and the scale.

        Raises:
            AlliageError: the header says other things than the tensors.
        """
        self.file = file
        metadata = file.sources[0].metadata
        self.task = metadata[_TASK]
        damaged = Problem(
            file.ref, "its header and its masks contradict each other.", "Merge anew."
        )
        try:
            shapes = json.loads(metadata[_SHAPES])
            self.shapes = {name: tuple(map(int, shape)) for name, shape in shapes.items()}
            found = {name: spec.numel for name, spec in file.specs().items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise AlliageError(damaged) from None
        wanted = {name: -(-math.prod(shape) // 8) for name, shape in self.shapes.items()}
        if found != {**wanted, SCALE: 1}:
            raise AlliageError(damaged)
        raw = np.empty(1, np.float64)
        file.read_into(SCALE, 0, raw.view(np.uint8).data)
        self.scale = float(raw[0])

    @property
    def folder(self) -> Path | RemotePath:
        """The merged model that the masks belong to: the folder around tasks/."""
        return self.file.path.parent.parent

    @property
    def head(self) -> Path | RemotePath | None:
        """The file of the task's head, where it has one."""
        stem = self.file.path.name.removesuffix(".safetensors")
        file = self.folder / HEADS / stem / "head.safetensors"
        return file if file.is_file() else None

    def read(self, parameter: str, start: int, stop: int) -> NDArray[np.bool_]:
        """Which of the elements [start, stop) are kept."""
        first = start // 8
        raw = np.empty(-(-stop // 8) - first, np.uint8)
        if raw.size:
            self.file.read_into(parameter, first, raw.data)
        bits = np.unpackbits(raw, bitorder="little").view(np.bool_)
        return bits[start - first * 8 : stop - first * 8]
