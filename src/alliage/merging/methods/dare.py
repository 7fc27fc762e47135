"""DARE (Yu et al. 2024): drop entries at random, rescale the rest; then add, or merge as TIES."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from alliage.merging.methods.ties import Combine, Vote, elected
from alliage.merging.products import ExactSum
from alliage.merging.registry import Scope, method, partial_sums, per_model, weighted_sum
from alliage.merging.signature import Factor, In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor

Rescale = Literal["inverse", "l1", "none"]

_NOTHING = 1e-7  # a sum of magnitudes that cannot be divided by


class KeptMagnitude:
    """Σ|τᵢ| / Σ|mᵢτᵢ| of each tensor, as a first pass, in float64."""

    reads: ClassVar[tuple[str, ...]] = ("density", "rescale")

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:  # noqa: ARG002
        """Start with nothing seen."""
        self._parameters = parameters
        self._sums = [(ExactSum(), ExactSum()) for _ in range(models)]  # before, after
        self._seen = False
        self._lock = threading.Lock()

    @staticmethod
    def scope(**parameters: Any) -> Scope:  # noqa: ARG004
        """Each tensor is rescaled by itself."""
        return "tensor"

    @staticmethod
    def least_passes(**parameters: Any) -> int:
        """Only "l1" needs to look at anything."""
        return int(parameters["rescale"] == "l1")

    @staticmethod
    def memory(models: int, sampled: int) -> int:  # noqa: ARG004
        """Bytes: next to none."""
        return 0

    def update(self, tensors: Tensor, place: int, uniform: Tensor | None = None) -> None:  # noqa: ARG002
        """Add a block's [n, m] magnitudes, before and after dropping."""
        assert uniform is not None
        kept = _drop(tensors, self._parameters["density"], uniform)
        sums = [
            (partial_sums(before.abs()), partial_sums(after.abs()))
            for before, after in zip(tensors, kept, strict=True)
        ]
        with self._lock:
            self._seen = True
            for (before, after), (more, left) in zip(self._sums, sums, strict=True):
                before.add(more)
                after.add(left)

    def result(self) -> Mapping[str, Any] | None:
        """The {"factors": [n]}."""
        if not self.least_passes(**self._parameters):
            return {"factors": None}
        if not self._seen:
            return None
        return {"factors": [l1_factor(b.total(), a.total()) for b, a in self._sums]}


@method(
    "dare_linear",
    unit="block",
    space="delta",
    paper="arXiv:2311.03099",
    departures="rescale l1 and none are not in the paper; weights wᵢ are not either.",
    first_pass=KeptMagnitude,
    random=True,
)
def dare_linear(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1, open_low=True)] = 0.5,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    rescale: Rescale = "inverse",
    seed: Annotated[int, In(0)] = 0,
    factors: Sequence[float] | None = None,
    uniform: Tensor | None = None,
) -> Tensor:
    """Drop entries at random, rescale what stays, add it up: λ Σ wᵢ mᵢτᵢ / Kᵢ.

    Args:
        deltas: [n, ...], the task vectors, whole unless `uniform` is given.
        weight: wᵢ; a negative one takes a task away.
        density: Kᵢ, the share of entries that stays, 1 − p of the paper.
        scale: λ.
        rescale: "inverse": by 1/Kᵢ, the paper's; "l1": so that the tensor's sum of magnitudes stays
            what it was; "none".
        seed: of the draws.
        factors: [n], of the whole tensors, where `rescale` is "l1".
        uniform: [n, ...], draws from [0, 1); an entry stays where its draw is below Kᵢ.

    Returns:
        [...], to be added to the base.
    """
    kept = _dropped_and_rescaled(deltas, density, rescale, seed, factors, uniform)
    return weighted_sum(kept, weight) * scale


@method(
    "dare_ties",
    unit="block",
    space="delta",
    paper="arXiv:2311.03099",
    departures="The paper trims by TIES once more after dropping; here dropping takes the place of "
    "trimming, as has become usual. Cancelled votes are positive. rescale l1 and none and the "
    "weights wᵢ are not in the paper.",
    first_pass=KeptMagnitude,
    random=True,
)
def dare_ties(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1, open_low=True)] = 0.5,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    rescale: Rescale = "inverse",
    vote: Vote = "weighted",
    combine: Combine = "mean",
    seed: Annotated[int, In(0)] = 0,
    factors: Sequence[float] | None = None,
    uniform: Tensor | None = None,
) -> Tensor:
    """Drop entries at random, rescale what stays, elect signs and merge what agrees (TIES).

    Args:
        deltas: [n, ...], the task vectors, whole unless `uniform` is given.
        weight: wᵢ, each model's say in vote and mean.
        density: Kᵢ, the share of entries that stays, 1 − p of the paper.
        scale: λ.
        rescale: as for dare_linear.
        vote: as for ties.
        combine: as for ties.
        seed: of the draws.
        factors: [n], of the whole tensors, where `rescale` is "l1".
        uniform: [n, ...], draws from [0, 1); an entry stays where its draw is below Kᵢ.

    Returns:
        [...], to be added to the base.
    """
    kept = _dropped_and_rescaled(deltas, density, rescale, seed, factors, uniform)
    return elected(kept, weight=weight, vote=vote, combine=combine, scale=scale)


def drawn(deltas: Tensor, seed: int) -> Tensor:
    """The `uniform` of task vectors [n, ...] that are whole, where none is given."""
    import torch

    draw = torch.Generator(deltas.device).manual_seed(seed)
    return torch.rand(deltas.shape, generator=draw, device=deltas.device)


def l1_factor(before: float, after: float) -> float:
    """What makes a sum of magnitudes what it was before entries were dropped."""
    return before / after if min(before, after) >= _NOTHING else 1.0


def _drop(deltas: Tensor, density: PerModelNumber, uniform: Tensor) -> Tensor:
    return deltas.where(uniform < per_model(density, uniform), 0.0)


def _dropped_and_rescaled(
    deltas: Tensor,
    density: PerModelNumber,
    rescale: Rescale,
    seed: int,
    factors: Sequence[float] | None,
    uniform: Tensor | None,
) -> Tensor:
    import torch

    kept = _drop(deltas, density, drawn(deltas, seed) if uniform is None else uniform)
    if rescale == "none":
        return kept
    if rescale == "inverse":
        return kept / per_model(density, deltas)
    if factors is None:
        pairs = zip(deltas.flatten(1).double(), kept.flatten(1).double(), strict=True)
        factors = [l1_factor(float(b.abs().sum()), float(a.abs().sum())) for b, a in pairs]
    return kept * per_model(torch.tensor(factors), deltas)
