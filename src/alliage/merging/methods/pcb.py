"""PCB-Merging (Du et al. 2024): balance how parameters compete, within a task and between tasks."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from alliage.merging.registry import Scope, method
from alliage.merging.signature import Factor, In
from alliage.merging.thresholds import RankThresholds
from alliage.order_statistics import magnitude_thresholds

if TYPE_CHECKING:
    from torch import Tensor

_CLIPPED = 1e-4  # of all magnitudes, at either end


class Balance:
    """Where each model's magnitudes are clipped, and its scores cut, as a first pass."""

    reads: ClassVar[tuple[str, ...]] = ("density", "over")

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:
        """Search the ends of the magnitudes first."""
        self._ends = RankThresholds(_end_ranks(models, numel), numel, exact=False)
        self._cuts = RankThresholds(
            _cut_ranks(models, numel, parameters["density"]), numel, exact=False
        )
        self._bounds: list[float] | None = None
        self._tops = [0.0] * models
        self._lock = threading.Lock()

    @staticmethod
    def scope(**parameters: Any) -> Scope:
        """What is balanced as one vector."""
        scope: Scope = parameters["over"]
        return scope

    @staticmethod
    def least_passes(**parameters: Any) -> int:  # noqa: ARG004
        """One for the ends, and one for the scores that depend on them."""
        return 2

    @staticmethod
    def memory(models: int, sampled: int) -> int:
        """Bytes of three histograms for each model."""
        return RankThresholds.memory(3 * models, sampled)

    def sample(self, tensors: Tensor) -> None:
        """Take slices [n, m] for the ends."""
        self._ends.sample(tensors)

    def update(self, tensors: Tensor, place: int, uniform: Tensor | None = None) -> None:  # noqa: ARG002
        """See a block [n, m] for what is looked for now."""
        if self._bounds is None:
            self._ends.update(tensors, place)
            return
        scores = _scores(tensors, self._bounds)
        self._cuts.update(scores, place)
        if scores.shape[1]:
            tops = scores.amax(dim=1).tolist()
            with self._lock:
                self._tops = [max(pair) for pair in zip(self._tops, tops, strict=True)]

    def result(self) -> Mapping[str, Any] | None:
        """The {"bounds": [2n], "cuts": [n], "tops": [n]}."""
        if self._bounds is None:
            ends = self._ends.result()
            self._bounds = None if ends is None else ends["thresholds"]
            return None
        cuts = self._cuts.result()
        if cuts is None:
            return None
        return {"bounds": self._bounds, "cuts": cuts["thresholds"], "tops": self._tops}


@method(
    "pcb",
    unit="block",
    space="delta",
    paper="arXiv:2410.02396",
    departures="As the authors' code computes it, which is not the paper's formula. A score below "
    "zero, whose sign opposes the sum, always falls away, also where K is larger than the share of "
    "the others; and at K = 1 no other does. Where less than one entry would be clipped none is.",
    first_pass=Balance,
    homogeneous=False,
    work=2,
)
def pcb(
    deltas: Tensor,
    *,
    density: Annotated[float, In(0, 1, open_low=True)] = 0.1,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    over: Scope = "model",  # noqa: ARG001  the engine's: here everything is one vector
    bounds: Sequence[float] | None = None,
    cuts: Sequence[float] | None = None,
    tops: Sequence[float] | None = None,
) -> Tensor:
    """Average each parameter by scores of its weight in its task and of its agreement with others.

    aᵢ is |τᵢ| clipped to all but its 10⁻⁴ smallest and largest entries, uᵢ is aᵢ stretched to
    [0, 1]. The score βᵢ = exp(n·uᵢ²) · tanh(τᵢ·Σⱼτⱼ) balances within the task and between the n
    tasks. The share K of largest scores stays: what they exceed the smallest of them by, stretched
    to [0, 1], is sᵢ, and the result λ Σ sᵢ·sgn(τᵢ)·aᵢ / Σ sᵢ, zero where nothing stays.

    Args:
        deltas: [n, ...], the task vectors, whole unless the other arguments are given.
        density: K, the share of each model's scores that stays.
        scale: λ.
        over: what is balanced as one vector: the model, as the authors do it, a module or a tensor.
        bounds: [2n], the smallest clipped magnitude of each model, then the largest, for a block.
        cuts: [n], each model's score from which on scores stay, for a block.
        tops: [n], each model's largest score, for a block.

    Returns:
        [...], to be added to the base.
    """
    import torch

    models, numel = len(deltas), deltas[0].numel()
    if bounds is None:
        twice = deltas.flatten(1).repeat(2, 1)
        bounds = magnitude_thresholds(twice, _end_ranks(models, numel)).tolist()
    scores = _scores(deltas, bounds)
    if cuts is None or tops is None:
        flat = scores.flatten(1)
        cuts = magnitude_thresholds(flat, _cut_ranks(models, numel, density)).tolist()
        tops = flat.amax(dim=1).tolist() if numel else [0.0] * models
    total = torch.zeros_like(deltas[0], dtype=torch.float64)
    shares = torch.zeros_like(total)
    for delta, score, cut, top, low, high in zip(
        deltas, scores, cuts, tops, bounds[:models], bounds[models:], strict=True
    ):
        if top > cut:
            share = (score.double() - cut).clamp_(min=0).div_(top - cut)
            shares += share
            total += share.mul_(delta.abs().clamp_(low, high).copysign_(delta))
    return total.div_(shares.where(shares > 0, 1.0)).float() * scale


def _scores(deltas: Tensor, bounds: Sequence[float]) -> Tensor:
    """What is positive of βᵢ, float32: rounded, so that vector instructions make no difference."""
    import torch

    models = len(deltas)
    total = torch.zeros_like(deltas[0], dtype=torch.float64)
    for delta in deltas:
        total += delta
    scores = torch.empty_like(deltas)
    for out, delta, low, high in zip(scores, deltas, bounds[:models], bounds[models:], strict=True):
        stretched = delta.abs().clamp_(low, high).double().sub_(low)
        stretched /= high - low if high > low else 1.0
        within = stretched.square_().mul_(models).exp_()
        out.copy_(within.mul_((delta * total).tanh_()).clamp_(min=0))
    return scores


def _end_ranks(models: int, numel: int) -> list[int]:
    """Of the magnitudes that others are clipped to."""
    clipped = int(numel * _CLIPPED)
    return [clipped + 1] * models + [numel - clipped] * models


def _cut_ranks(models: int, numel: int, density: float) -> list[int]:
    """Of the smallest scores that stay; 0, that of no score, where all do."""
    return [int(numel * (1 - density)) + 1 if density < 1 else 0] * models
