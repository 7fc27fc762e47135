"""Task vectors in files of their own: safetensors with the form in the metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alliage.checkpoints import Checkpoint, TensorSpec
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import OutputFolder, TensorWriter, plan_layout
from alliage.errors import AlliageError, Problem
from alliage.vectors.vector import Vector, check_parameter

if TYPE_CHECKING:
    import torch

_FORM = "alliage.vector"
_BLOCK = 2**20


class StoredVector(Vector):
    """A vector read from a file that `save` wrote."""

    base = None
    heads = ()

    def __init__(self, file: Checkpoint) -> None:
        """Open the file's content as a vector; no tensor is read."""
        self.file = file
        self.checkpoints = (file,)
        self.name = file.name
        self.shapes = {name: spec.shape for name, spec in file.specs().items()}

    def source(self, parameter: str) -> TensorSpec:
        """Where the delta lies."""
        return self.file.specs()[parameter]

    def block(
        self,
        parameter: str,
        start: int,
        stop: int,
        base: torch.Tensor | None = None,  # noqa: ARG002  the file holds the difference
    ) -> torch.Tensor:
        """Elements [start, stop) as stored, float32."""
        check_parameter(self, parameter)
        return self.file.read(parameter, start, stop)


def save(vector: Vector, out: str | Path) -> Path:
    """Write a vector's deltas to a folder, float32, block by block.

    Returns:
        the folder: vector.safetensors, or shards with their index. `load` reads it again.

    Raises:
        UsageError: `out` exists, or is a URL.
    """
    layout = plan_layout(
        ((name, "F32", shape) for name, shape in vector.shapes.items()),
        stem="vector",
        metadata={_FORM: "dense", "alliage.name": vector.name},
    )
    out = local_destination(out)
    with OutputFolder(out) as folder, TensorWriter(folder.staging, layout) as writer:
        for specs in layout.shards.values():
            for spec in specs:
                for start in range(0, spec.numel, _BLOCK):
                    stop = min(start + _BLOCK, spec.numel)
                    block = vector.block(spec.name, start, stop).contiguous()
                    writer.write(spec.name, start, block.numpy().data.cast("B"))
    return out


def load(folder: str | Path) -> StoredVector:
    """Open a vector that `save` wrote.

    Raises:
        AlliageError: the folder holds something else.
    """
    path = Path(folder)
    index, single = path / "vector.safetensors.index.json", path / "vector.safetensors"
    file = open_checkpoint(index if index.is_file() else single)
    if any(source.metadata.get(_FORM) != "dense" for source in file.sources):
        file.close()
        raise AlliageError(Problem(str(folder), "holds weights, but no saved task vector."))
    vector = StoredVector(file)
    return vector.named(file.sources[0].metadata["alliage.name"])
