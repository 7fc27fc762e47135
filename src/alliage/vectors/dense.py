"""Task vectors of fully tuned models, read from both checkpoints as they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from alliage.checkpoints import Checkpoint, TensorSpec
from alliage.errors import AlliageError
from alliage.vectors.matching import match
from alliage.vectors.vector import Vector, check_parameter

if TYPE_CHECKING:
    import torch


class TaskVector(Vector):
    """τ = θ_tuned − θ_base of two full checkpoints, in float32.

    Attributes:
        tuned: the tuned checkpoint.
        heads: names in `tuned` of the task heads, which τ leaves out.
    """

    base: Checkpoint

    def __init__(self, base: Checkpoint, tuned: Checkpoint, *, name: str | None = None) -> None:
        """Match the two checkpoints; no tensor is read.

        Raises:
            AlliageError: the tuned model does not come from this base; every misfit.
        """
        found = match(base, tuned)
        if found.problems:
            raise AlliageError(found.problems)
        self.base = base
        self.tuned = tuned
        self.checkpoints = (tuned,)
        self.name = name or tuned.name
        self.heads = found.heads
        self.shapes: dict[str, tuple[int, ...]] = {
            name: base.specs()[name].shape for name in found.pairs
        }
        self._tuned_names = found.pairs

    def set_apart(self, parameters: Iterable[str]) -> None:
        """Move task heads out of the vector, to `heads`."""
        for parameter in parameters:
            del self.shapes[parameter]
            self.heads = (*self.heads, self._tuned_names.pop(parameter))

    def block(
        self, parameter: str, start: int, stop: int, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Elements [start, stop) of θ_tuned − θ_base, float32."""
        check_parameter(self, parameter)
        if base is None:
            base = self.base.read(parameter, start, stop).float()
        return self.weights(parameter, start, stop).sub_(base)

    def source(self, parameter: str) -> TensorSpec:
        """Where the tuned weights lie."""
        return self.tuned.specs()[self._tuned_names[parameter]]

    def weights(self, parameter: str, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) of θ_tuned itself, float32, a tensor of the caller's own."""
        import torch

        stored = self.tuned.read(self._tuned_names[parameter], start, stop)
        return stored.to(torch.float32)
