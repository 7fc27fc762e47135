"""A model's weights by themselves, for methods that need no common base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alliage.checkpoints import Checkpoint, TensorSpec
from alliage.vectors.vector import Vector, check_parameter

if TYPE_CHECKING:
    import torch


class WholeModel(Vector):
    """All weights of one checkpoint by its own names, compared with nothing.

    Layers of models of different depths can be stacked by it.

    Attributes:
        tuned: the checkpoint.
        heads: none: no head is set apart.
    """

    def __init__(self, tuned: Checkpoint, *, name: str | None = None) -> None:
        """Take every weight; tied ones once."""
        self.base = None
        self.tuned = tuned
        self.checkpoints = (tuned,)
        self.name = name or tuned.name
        self.heads = ()
        self.shapes = {
            name: spec.shape
            for name, spec in tuned.specs().items()
            if spec.is_weight and name not in tuned.ties
        }

    def block(
        self, parameter: str, start: int, stop: int, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Elements [start, stop) of θ less `base`, float32."""
        weights = self.weights(parameter, start, stop)
        return weights if base is None else weights.sub_(base)

    def source(self, parameter: str) -> TensorSpec:
        """Where the weights lie."""
        check_parameter(self, parameter)
        return self.tuned.specs()[parameter]

    def weights(self, parameter: str, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) of θ, float32, a tensor of the caller's own."""
        import torch

        return self.tuned.read(self.source(parameter).name, start, stop).to(torch.float32)
