"""What an adapter that is merged by its own parameters is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alliage.merging.planning.adapter_names import in_memory


@dataclass(frozen=True, slots=True)
class MergedModule:
    """One adapted module of the output.

    Attributes:
        name: by the base's tensor names, without ".weight".
        B, A: names of its factors in the output.
        shapes: of B and A as stored; those of a convolution have more than two axes.
        dtype: code of the factors' type.
        rank: of the result, at the most.
        certain: whether the rank is known before values are read.
        arguments: of the method.
    """

    name: str
    B: str
    A: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: str
    rank: int
    certain: bool
    arguments: Mapping[str, Any]

    @property
    def numel(self) -> int:
        """Elements of both factors."""
        B, A = self.shapes
        return self.rank * (B[0] + math.prod(A[1:]))

    @property
    def in_memory(self) -> str:
        """The module's name in the model, as PEFT sees it."""
        return in_memory(self.A)


@dataclass(frozen=True, slots=True)
class MergedScales:
    """The scales of one module of the output.

    Attributes:
        name: by the base's tensor names, without ".weight".
        stored: their name in the output.
        shape: [channels, 1] over outputs, [1, channels] over the inputs of a feed-forward module.
        dtype: code of their type.
        arguments: of the method.
    """

    name: str
    stored: str
    shape: tuple[int, ...]
    dtype: str
    arguments: Mapping[str, Any]

    @property
    def numel(self) -> int:
        """How many they are."""
        return math.prod(self.shape)

    @property
    def in_memory(self) -> str:
        """The module's name in the model, as PEFT sees it."""
        return in_memory(self.stored)

    @property
    def over_inputs(self) -> bool:
        """Whether they scale inputs, as PEFT's feedforward_modules do."""
        return self.shape[0] == 1 and self.shape[-1] != 1
