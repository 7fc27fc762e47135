"""Inner products and distances between models that do not fit into memory, as first passes.

Means on spheres, medians and shares by norms depend on the models through these few numbers alone,
and are weighted sums of them: so they are merged block by block, whatever the size of a tensor.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

from alliage.merging.registry import Scope, partial_sums

if TYPE_CHECKING:
    from torch import Tensor

Table = list[list[float]]


class ExactSum:
    """A sum of floats without any rounding, in a few floats that do not overlap (Shewchuk 1997).

    It does not depend on the order of what is added, nor does it grow with it.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        """Start with nothing added."""
        self._parts: list[float] = []

    def add(self, values: Iterable[float]) -> None:
        """Add some finite values."""
        for value in values:
            rest, count = value, 0
            for part in self._parts:
                large, small = (rest, part) if abs(rest) >= abs(part) else (part, rest)
                rest = large + small
                if error := small - (rest - large):
                    self._parts[count] = error
                    count += 1
            self._parts[count:] = [rest]

    def total(self) -> float:
        """The sum, rounded once."""
        return math.fsum(self._parts)


class _Pairs:
    """A number for each pair of models, summed over all elements."""

    reads: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[str]

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:  # noqa: ARG002
        """Start with nothing seen."""
        self._models = models
        self._sums = {pair: ExactSum() for pair in self.pairs(models)}
        self._seen = False
        self._lock = threading.Lock()

    @staticmethod
    def scope(**parameters: Any) -> Scope:  # noqa: ARG004
        """Each tensor by itself."""
        return "tensor"

    @staticmethod
    def least_passes(**parameters: Any) -> int:  # noqa: ARG004
        """One."""
        return 1

    @staticmethod
    def memory(models: int, sampled: int) -> int:  # noqa: ARG004
        """Bytes: next to none."""
        return 0

    @staticmethod
    def pairs(models: int) -> Iterator[tuple[int, int]]:
        """Those that are looked at: a model and itself too; it is the same both ways round."""
        return ((one, other) for one in range(models) for other in range(one + 1))

    @staticmethod
    def terms(one: Tensor, other: Tensor) -> Tensor:
        """What is summed up, from two float64 vectors."""
        return one * other

    def update(self, tensors: Tensor, place: int, uniform: Tensor | None = None) -> None:  # noqa: ARG002
        """Add a block [n, m]."""
        rows = tensors.double()
        found = [partial_sums(self.terms(rows[one], rows[other])) for one, other in self._sums]
        with self._lock:
            self._seen = True
            for total, sums in zip(self._sums.values(), found, strict=True):
                total.add(sums)

    def result(self) -> Mapping[str, Any] | None:
        """The table [n, n] under its name, the same whoever saw which block."""
        return {self.gives: self.table()} if self._seen else None

    def table(self) -> Table:
        """What was found, zero where no pair was looked at."""
        table = [[0.0] * self._models for _ in range(self._models)]
        for (one, other), found in self._sums.items():
            table[one][other] = table[other][one] = found.total()
        return table


class Products(_Pairs):
    """⟨θᵢ, θⱼ⟩ over each tensor."""

    gives = "products"


class Distances(_Pairs):
    """‖θᵢ − θⱼ‖² over what the parameter `over` says: the model, a module or a tensor."""

    reads: ClassVar[tuple[str, ...]] = ("over",)
    gives = "distances"

    @staticmethod
    def scope(**parameters: Any) -> Scope:
        """As the recipe has it."""
        over: Scope = parameters["over"]
        return over

    @staticmethod
    def pairs(models: int) -> Iterator[tuple[int, int]]:
        """Two models each: none is away from itself."""
        return combinations(range(models), 2)

    @staticmethod
    def terms(one: Tensor, other: Tensor) -> Tensor:
        """Squared differences: from products they would be small remainders of large numbers."""
        return (one - other).square_()


class SquaredNorms(_Pairs):
    """‖τᵢ‖² over the whole model, on the diagonal."""

    gives = "squares"

    @staticmethod
    def scope(**parameters: Any) -> Scope:  # noqa: ARG004
        """The model is one vector."""
        return "model"

    @staticmethod
    def pairs(models: int) -> Iterator[tuple[int, int]]:
        """Each model with itself."""
        return ((model, model) for model in range(models))


def whole(kind: type[_Pairs], tensors: Tensor) -> Table:
    """The table of tensors [n, ...] that are whole."""
    seen = kind(len(tensors), tensors[0].numel())
    seen.update(tensors.reshape(len(tensors), -1), 0)
    return seen.table()
