"""RAM (Yuan et al. 2026): average what several models changed, keep what one alone did."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from alliage.merging.registry import Scope, method, per_model
from alliage.merging.signature import In

if TYPE_CHECKING:
    from torch import Tensor


class UniqueRescaling:
    """What each model's unique entries are multiplied by, as a first pass that counts entries."""

    reads: ClassVar[tuple[str, ...]] = ("epsilon", "r", "alpha", "over")

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:  # noqa: ARG002
        """Start with nothing counted."""
        self._parameters = parameters
        self._shared, self._unique = [0] * models, [0] * models
        self._seen = False
        self._lock = threading.Lock()

    @staticmethod
    def scope(**parameters: Any) -> Scope:
        """What the counts are taken over."""
        scope: Scope = parameters["over"]
        return scope

    @staticmethod
    def least_passes(**parameters: Any) -> int:  # noqa: ARG004
        """One."""
        return 1

    @staticmethod
    def memory(models: int, sampled: int) -> int:  # noqa: ARG004
        """Bytes: next to none."""
        return 0

    def update(self, tensors: Tensor, place: int, uniform: Tensor | None = None) -> None:  # noqa: ARG002
        """Count a block's [n, m] entries that a model shares, and that are its own."""
        shared, unique = _counts(tensors, self._parameters["epsilon"])
        with self._lock:
            self._seen = True
            self._shared = [a + b for a, b in zip(self._shared, shared, strict=True)]
            self._unique = [a + b for a, b in zip(self._unique, unique, strict=True)]

    def result(self) -> Mapping[str, Any] | None:
        """The {"factors": [n]}."""
        if not self._seen:
            return None
        given = self._parameters
        return {"factors": _factors(self._shared, self._unique, given["r"], given["alpha"])}


@method(
    "ram",
    unit="block",
    space="delta",
    paper="arXiv:2601.13572",
    homogeneous=False,
)
def ram(deltas: Tensor, *, epsilon: Annotated[float, In(0)] = 1e-5) -> Tensor:
    """Average each parameter over the models that changed it, and those alone.

    An entry is changed where |τᵢ| > ε. What one model changed stays whole, instead of being divided
    by the number of all models.

    Args:
        deltas: [n, ...], the task vectors.
        epsilon: ε, the largest magnitude that counts as no change.

    Returns:
        [...], to be added to the base.
    """
    return _average(deltas, epsilon, [1.0] * len(deltas))


@method(
    "ram_plus",
    unit="block",
    space="delta",
    paper="arXiv:2601.13572",
    departures="r and α are those of the authors' code (a rescale factor of 1.2, ρ bounded by 1). "
    "`over` lets tensors and modules be counted apart, which is mergekit's reading.",
    first_pass=UniqueRescaling,
    homogeneous=False,
)
def ram_plus(
    deltas: Tensor,
    *,
    epsilon: Annotated[float, In(0)] = 1e-5,
    r: Annotated[float, In(0)] = 0.2,
    alpha: Annotated[float, In(0)] = 1.0,
    over: Scope = "model",  # noqa: ARG001  the engine's: here everything is counted as one
    factors: Sequence[float] | None = None,
) -> Tensor:
    """Average what several models changed, and strengthen what one alone changed.

    As ram, with a model's unique entries times λᵢ = 1 + r·min(ρᵢ, α), where ρᵢ is the number of its
    changed entries that others changed too, by the number of those that none did (α where there
    are none of these): what is lost by averaging is made up for.

    Args:
        deltas: [n, ...], the task vectors, whole unless `factors` is given.
        epsilon: ε, the largest magnitude that counts as no change.
        r: how much sharing strengthens what is unique.
        alpha: α, the bound of ρ.
        over: what ρ is counted over: the whole model, a module or a tensor.
        factors: [n], the λᵢ, for a block.

    Returns:
        [...], to be added to the base.
    """
    if factors is None:
        factors = _factors(*_counts(deltas, epsilon), r, alpha)
    return _average(deltas, epsilon, factors)


def _average(deltas: Tensor, epsilon: float, factors: Sequence[float]) -> Tensor:
    """The changed entries' mean, times a model's factor where it alone made the change."""
    import torch

    changed = deltas.abs() > epsilon
    count = changed.sum(dim=0)
    total = torch.zeros_like(deltas[0])
    for delta, own, factor in zip(
        deltas, changed, per_model(torch.tensor(factors), deltas), strict=True
    ):
        total += torch.where(own, torch.where(count == 1, delta * factor, delta), 0.0)
    return total / count.clamp(min=1)


def _counts(deltas: Tensor, epsilon: float) -> tuple[list[int], list[int]]:
    """How many entries each model shares with others, and how many are its own."""
    changed = (deltas.abs() > epsilon).flatten(1)
    count = changed.sum(dim=0)
    return (changed & (count > 1)).sum(dim=1).tolist(), (changed & (count == 1)).sum(dim=1).tolist()


def _factors(shared: Sequence[int], unique: Sequence[int], r: float, alpha: float) -> list[float]:
    return [
        1 + r * (min(several / one, alpha) if one else alpha * (several > 0))
        for several, one in zip(shared, unique, strict=True)
    ]
