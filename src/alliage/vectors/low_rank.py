"""Task vectors of LoRA adapters, by their factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from alliage.checkpoints import Checkpoint, TensorSpec
from alliage.checkpoints.names import is_conv1d, is_head, is_task_head
from alliage.errors import AlliageError, Problem
from alliage.vectors.adapter_names import base_names
from alliage.vectors.vector import Vector, check_parameter

if TYPE_CHECKING:
    import torch

# Rows of B·A are made in tiles at fixed places, so that a value does not depend on which block
# it was asked for in: matrix products round differently for different numbers of rows.
_TILE_ROWS = 64


class Factors(NamedTuple):
    """ΔW = scale · B · A.

    Attributes:
        B: [d_out, r], float32.
        A: [r, d_in], float32.
        scale: α/r, or α/√r with rsLoRA; 1 for a sum of several vectors.
    """

    B: torch.Tensor
    A: torch.Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class _Term:
    """One adapter's factors of one module, and what they are multiplied by."""

    adapter: Checkpoint
    a_name: str
    b_name: str
    scale: float
    transposed: bool  # the base stores the weight as [in, out]

    def times(self, factor: float) -> _Term:
        return _Term(self.adapter, self.a_name, self.b_name, self.scale * factor, self.transposed)


class LowRankVector(Vector):
    """A task vector ΔW = s·B·A for some modules (arXiv:2106.09685), zero elsewhere.

    B·A is formed only by `block` and `delta`, and there only the rows asked for. Sums and multiples
    stay low-rank: [B₁ B₂]·[A₁; A₂] is exactly B₁A₁ + B₂A₂, without the cross terms of averaged
    factors.

    Attributes:
        modules: names of the adapted modules, by the base's tensor names without ".weight".
        checkpoints: the adapters'.
        heads: names in the adapter's file of task heads saved whole, left out of the vector.
    """

    base: Checkpoint

    def __init__(self, base: Checkpoint, adapter: Checkpoint, *, name: str | None = None) -> None:
        """Match an adapter with its base; no tensor is read.

        Raises:
            AlliageError: the adapter belongs to another base; every misfit.
        """
        if adapter.adapter is None or adapter.adapter.kind != "lora":
            raise AlliageError(Problem(adapter.ref, "is no LoRA adapter."))
        problems: list[Problem] = []
        saved = adapter.adapter_saved
        whole = [name for name in saved if not is_head(name)]
        shared = [name for name in saved if is_head(name) and not is_task_head(name)]
        weights = [f"{module}.weight" for module in adapter.adapter_modules]
        found = base_names(base, adapter, [*weights, *whole], problems, optional=shared)
        terms: dict[str, tuple[_Term, ...]] = {}
        for module in adapter.adapter_modules:
            if f"{module}.weight" in found:
                parameter = found[f"{module}.weight"]
                term = _read_term(base, adapter, module, parameter, problems)
                terms[parameter] = (term,)
        self._saved = {found[n]: saved[n] for n in (*whole, *shared) if n in found}
        for parameter, stored in self._saved.items():
            expected, spec = base.specs()[parameter].shape, adapter.specs()[stored]
            if spec.shape != expected:
                problems.append(
                    Problem(
                        f"{spec.file}: {stored}",
                        f"expected the base's shape {list(expected)}, found {list(spec.shape)}.",
                        "The adapter belongs to another base, or its embeddings were resized.",
                    )
                )
        if problems:
            raise AlliageError(problems)
        self._fill(base, terms, name or adapter.name)
        self.heads = tuple(stored for n, stored in saved.items() if is_head(n) and n not in found)

    def _fill(self, base: Checkpoint, terms: Mapping[str, tuple[_Term, ...]], name: str) -> None:
        self.base = base
        self.name = name
        self._terms = terms
        self._recent: tuple[str, Factors] | None = None
        self.checkpoints = tuple(dict.fromkeys(t.adapter for ts in terms.values() for t in ts))
        self.modules = tuple(parameter.removesuffix(".weight") for parameter in terms)
        self.shapes = {
            parameter: base.specs()[parameter].shape for parameter in [*terms, *self._saved]
        }

    @classmethod
    def _of(cls, base: Checkpoint, terms: Mapping[str, tuple[_Term, ...]], name: str) -> Self:
        vector = cls.__new__(cls)
        vector._saved = {}
        vector.heads = ()
        vector._fill(base, terms, name)
        return vector

    def factors(self, module: str) -> Factors:
        """The factors of one of `modules`; ΔW = scale·B·A maps inputs to outputs.

        Where the base stores the weight as [in, out] (GPT-2, embeddings), the stored delta is ΔWᵀ.

        Raises:
            KeyError: the module is not adapted; with the nearest names.
        """
        import torch

        check_parameter(self, f"{module}.weight")
        terms = self._terms[f"{module}.weight"]
        A = [t.adapter.read(t.a_name).float().flatten(1) for t in terms]
        B = [t.adapter.read(t.b_name).float().flatten(1) for t in terms]
        if len(terms) == 1:
            return Factors(B[0], A[0], terms[0].scale)
        scaled = [b * term.scale for b, term in zip(B, terms, strict=True)]
        return Factors(torch.cat(scaled, dim=1), torch.cat(A), 1.0)

    def _recent_factors(self, module: str) -> Factors:
        """`factors`, kept for the blocks of one parameter that follow one another."""
        recent = self._recent
        if recent is None or recent[0] != module:
            recent = (module, self.factors(module))
            self._recent = recent
        return recent[1]

    def rank(self, module: str) -> int:
        """The number of columns of B, and of rows of A."""
        return sum(t.adapter.specs()[t.a_name].shape[0] for t in self._terms[f"{module}.weight"])

    def scale(self, module: str) -> float:
        """The scale of `factors`, without reading them."""
        terms = self._terms[f"{module}.weight"]
        return terms[0].scale if len(terms) == 1 else 1.0

    def stored(self, module: str) -> tuple[TensorSpec, TensorSpec]:
        """Where the first adapter's B and A of a module lie."""
        term = self._terms[f"{module}.weight"][0]
        specs = term.adapter.specs()
        return specs[term.b_name], specs[term.a_name]

    def source(self, parameter: str) -> TensorSpec:
        """Where B lies, or what replaces the parameter."""
        if parameter in self._saved:
            return self.adapter.specs()[self._saved[parameter]]
        return self.stored(parameter.removesuffix(".weight"))[0]

    @property
    def adapter(self) -> Checkpoint:
        """The first adapter's checkpoint; the only one, unless the vector is a sum."""
        return self.checkpoints[0]

    @property
    def saved_whole(self) -> tuple[str, ...]:
        """The base's parameters that the adapter replaces instead of adding factors to them."""
        return tuple(self._saved)

    def take_in(self, heads: Mapping[str, str]) -> None:
        """Count task heads that the adapter saved whole among its parameters.

        Args:
            heads: their names in the adapted model -> in the adapter's file, all of `heads`.
        """
        specs = self.adapter.specs()
        self._saved |= heads
        shapes = {name: specs[stored].shape for name, stored in heads.items()}
        self.shapes = {**self.shapes, **shapes}
        self.heads = ()

    def block(
        self, parameter: str, start: int, stop: int, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Elements [start, stop) of the stored delta; the rows of B·A that hold them are formed."""
        import torch

        check_parameter(self, parameter)
        if parameter in self._saved:
            if base is None:
                base = self.base.read(parameter, start, stop).float()
            stored = self.checkpoints[0].read(self._saved[parameter], start, stop)
            return stored.to(torch.float32).sub_(base)
        B, A, scale = self._recent_factors(parameter.removesuffix(".weight"))
        if self._terms[parameter][0].transposed:
            B, A = A.T, B.T
        columns = A.shape[1]
        first = start // columns // _TILE_ROWS * _TILE_ROWS
        last = min(B.shape[0], math.ceil(stop / columns))
        tiles = [B[row : row + _TILE_ROWS] @ A for row in range(first, last, _TILE_ROWS)]
        flat = torch.cat(tiles).reshape(-1) if tiles else torch.empty(0)
        return flat[start - first * columns : stop - first * columns].mul(scale)

    def __add__(self, other: Vector) -> Vector:
        if not isinstance(other, LowRankVector) or self._saved or other._saved:
            return super().__add__(other)
        if other.base.path != self.base.path:
            return super().__add__(other)  # which says what does not fit
        terms = dict(self._terms)
        for parameter, more in other._terms.items():
            terms[parameter] = (*terms.get(parameter, ()), *more)
        return self._of(self.base, terms, f"{self.name} + {other.name}")

    def __mul__(self, factor: float) -> Vector:
        if self._saved:
            return super().__mul__(factor)
        terms = {
            parameter: tuple(term.times(factor) for term in group)
            for parameter, group in self._terms.items()
        }
        name = f"−{self.name}" if factor == -1 else f"{factor:g}·{self.name}"
        return self._of(self.base, terms, name)


def _read_term(
    base: Checkpoint, adapter: Checkpoint, module: str, parameter: str, problems: list[Problem]
) -> _Term:
    """One module's factors, checked by their shapes; misfits go to `problems`."""
    settings, group = adapter.adapter, adapter.adapter_modules[module]
    assert settings is not None
    a_name, b_name = group.parts["A"], group.parts["B"]
    A, B = adapter.specs()[a_name].shape, adapter.specs()[b_name].shape
    stored = base.specs()[parameter].shape
    rank, plain = A[0], (B[0], math.prod(A[1:]))
    flat = (stored[0], math.prod(stored[1:]))
    where = f"{adapter.ref}: {module}"
    if math.prod(B[1:]) != rank or flat not in (plain, plain[::-1]):
        problems.append(
            Problem(
                where,
                f"B {list(B)} and A {list(A)} make no update of the base's {parameter} "
                f"{list(stored)}.",
                "The adapter belongs to another base.",
            )
        )
    elif rank != settings.expected_rank(module):
        problems.append(
            Problem(
                where,
                f"A has rank {rank}, its settings say {settings.expected_rank(module)}.",
                "The scale cannot be known: adapter_config.json and weights disagree.",
            )
        )
    if plain == plain[::-1]:  # PEFT's own flag is one for all modules, so the name decides
        model_type = (base.config or {}).get("model_type")
        stored_turned = is_conv1d(model_type, parameter) if model_type else settings.transposed
        transposed = group.embedding or stored_turned
    else:
        transposed = flat != plain
    return _Term(adapter, a_name, b_name, settings.scale(module, max(rank, 1)), transposed)
