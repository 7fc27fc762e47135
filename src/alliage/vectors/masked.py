"""What a merged model holds of one of its tasks, found by the task's masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alliage.checkpoints import Checkpoint, TensorSpec
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.masks import MaskFile
from alliage.errors import AlliageError, Problem
from alliage.vectors.vector import Vector, check_parameter

if TYPE_CHECKING:
    import torch


class MaskedVector(Vector):
    """s·M∘(θ_merged − θ_base): EMR-Merging (arXiv:2405.17461), TALL masks (arXiv:2405.07813).

    Attributes:
        merged: the model that was merged from the tasks.
        masks: the task's.
        heads: of the task, which lie beside the merged model.
    """

    base: Checkpoint

    def __init__(self, base: Checkpoint, file: Checkpoint, *, name: str | None = None) -> None:
        """Open the masks and the merged model around them; no tensor is read but the scale.

        Raises:
            AlliageError: the masks are of another model, or it of another base; every misfit.
        """
        self.base = base
        self.masks = MaskFile(file)
        self.merged = open_checkpoint(str(self.masks.folder))
        head = self.masks.head
        kept = (open_checkpoint(str(head)),) if head is not None else ()
        self.checkpoints = (*kept, self.merged, file)
        self.heads = tuple(name for source in kept for name in source.specs())
        self.name = name or self.masks.task
        self.shapes = self.masks.shapes
        problems = []
        for whose, model in (("merged model", self.merged), ("base", base)):
            specs = model.specs()
            for parameter, shape in self.shapes.items():
                if parameter not in specs or specs[parameter].shape != shape:
                    found = list(specs[parameter].shape) if parameter in specs else "nothing"
                    what = f"{model.ref}, the {whose}, has {found} of this name, not {list(shape)}."
                    fix = "Masks belong to the merge that wrote them, and to its base."
                    problems.append(Problem(f"{file.ref}: {parameter}", what, fix))
        if problems:
            raise AlliageError(problems)

    def block(
        self, parameter: str, start: int, stop: int, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Elements [start, stop) of s·M∘(θ_merged − θ_base), float32."""
        import torch

        check_parameter(self, parameter)
        if base is None:
            base = self.base.read(parameter, start, stop).float()
        delta = self.merged.read(parameter, start, stop).to(torch.float32).sub_(base)
        kept = torch.from_numpy(self.masks.read(parameter, start, stop))
        return delta.mul_(self.masks.scale).masked_fill_(~kept, 0.0)

    def source(self, parameter: str) -> TensorSpec:
        """Where the merged weights lie."""
        return self.merged.specs()[parameter]
