"""What all forms of task vectors have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from alliage.errors import Problem, UsageError, nearest

if TYPE_CHECKING:
    import torch

    from alliage.checkpoints import Checkpoint, TensorSpec


class Vector(ABC):
    """A task vector τ = θ_tuned − θ_base (arXiv:2212.04089), one delta for each parameter.

    Nothing is computed before it is asked for, and never more than what is asked for.

    Attributes:
        name: a short name of the tuned model, for tables.
        base: the model that τ counts from; None for a vector read from a file of its own.
        shapes: parameter -> shape, by the base's tensor names. Task heads, integer buffers and the
            second names of tied weights are not among them.
        checkpoints: what it is read from beside the base, the tuned model's own first.
        heads: names, in the first of `checkpoints`, of task heads that stay out of it.
    """

    name: str
    base: Checkpoint | None
    shapes: Mapping[str, tuple[int, ...]]
    checkpoints: tuple[Checkpoint, ...]
    heads: tuple[str, ...]

    @abstractmethod
    def block(
        self, parameter: str, start: int, stop: int, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Elements [start, stop) of one parameter's delta.

        Args:
            parameter: a key of `shapes`.
            start: first element of the range, in the flattened parameter.
            stop: end of the range.
            base: the base's own elements of that range in float32, for a caller that has them.

        Returns:
            float32, [stop − start].
        """

    @abstractmethod
    def source(self, parameter: str) -> TensorSpec:
        """Where a parameter's values lie, to be named in errors."""

    def delta(self, parameter: str) -> torch.Tensor:
        """One parameter's whole delta, float32, with the parameter's shape."""
        check_parameter(self, parameter)
        shape = self.shapes[parameter]
        return self.block(parameter, 0, math.prod(shape)).reshape(shape)

    def __add__(self, other: Vector) -> Vector:
        return Combination([(1.0, self), (1.0, other)])

    def __sub__(self, other: Vector) -> Vector:
        return self + (-other)

    def __neg__(self) -> Vector:
        return -1.0 * self

    def __mul__(self, factor: float) -> Vector:
        return Combination([(float(factor), self)])

    def __rmul__(self, factor: float) -> Vector:
        return self * factor

    def named(self, name: str) -> Self:
        """The same vector under another name."""
        self.name = name
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self.shapes)} parameters>"


class Combination(Vector):
    """A lazy linear combination Σ cᵢτᵢ, summed in the order of its terms.

    A parameter that only some vectors change counts as zero in the others: an adapter leaves
    what it does not adapt where the base has it.
    """

    def __init__(self, terms: Sequence[tuple[float, Vector]]) -> None:
        """Combine vectors of one base.

        Raises:
            UsageError: a parameter has two shapes: the vectors count from different bases.
        """
        self.terms: list[tuple[float, Vector]] = []
        for factor, vector in terms:
            if isinstance(vector, Combination):
                self.terms += [(factor * inner, term) for inner, term in vector.terms]
            else:
                self.terms.append((factor, vector))
        self.base = next((v.base for _, v in self.terms if v.base is not None), None)
        self.name = " ".join(_signed(factor, vector.name) for factor, vector in self.terms)
        self.checkpoints = tuple(c for _, vector in self.terms for c in vector.checkpoints)
        self.heads = self.terms[0][1].heads
        shapes: dict[str, tuple[int, ...]] = {}
        problems = []
        for _, vector in self.terms:
            for parameter, shape in vector.shapes.items():
                if shapes.setdefault(parameter, shape) != shape:
                    problems.append(
                        Problem(
                            f"{vector.name}: {parameter}",
                            f"has the shape {list(shape)}, expected {list(shapes[parameter])}.",
                            "Only vectors from the same base can be added.",
                        )
                    )
        if problems:
            raise UsageError(problems)
        self.shapes = shapes

    def block(
        self, parameter: str, start: int, stop: int, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Elements [start, stop) of the sum."""
        import torch

        total = torch.zeros(stop - start)
        first = self.terms[0][1].base
        for factor, vector in self.terms:
            if parameter in vector.shapes:
                # `base` is not what an adapter of a tuned model counts from.
                own = base if _is_one(first, vector.base) else None
                # Product and sum apart: a fused one rounds by the element's place in the block.
                total.add_(vector.block(parameter, start, stop, own).mul(factor))
        return total

    def source(self, parameter: str) -> TensorSpec:
        """Where the first term with that parameter lies."""
        return next(v.source(parameter) for _, v in self.terms if parameter in v.shapes)


def _is_one(base: Checkpoint | None, other: Checkpoint | None) -> bool:
    if base is None or other is None:
        return base is other
    return base.path == other.path


def check_parameter(vector: Vector, parameter: str) -> None:
    """Refuse a parameter that a vector does not have.

    Raises:
        KeyError: with the nearest names.
    """
    if parameter not in vector.shapes:
        raise KeyError(f"{parameter}: not in {vector.name}. {nearest(parameter, vector.shapes)}")


def _signed(factor: float, name: str) -> str:
    sign = "−" if factor < 0 else "+"
    return f"{sign} {name}" if abs(factor) == 1 else f"{sign} {abs(factor):g}·{name}"
