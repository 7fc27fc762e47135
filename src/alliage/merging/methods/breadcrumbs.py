"""Model Breadcrumbs (Davari & Belilovsky 2023): neither the smallest nor the largest entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from alliage.merging.methods.ties import Combine, Vote, elected
from alliage.merging.registry import Scope, method, one_each, weighted_sum
from alliage.merging.signature import Factor, In, PerModel, PerModelNumber
from alliage.merging.thresholds import RankThresholds
from alliage.merging.trimming import stays, whole_thresholds

if TYPE_CHECKING:
    from torch import Tensor

_DEPARTURES = (
    "The paper gives both ends as percentiles; here exactly ⌊dK⌋ of a tensor's d entries stay, "
    "below the ⌊dγ⌋ largest, and where K + γ > 1 fewer of the largest are dropped. Weights wᵢ are "
    "not in the paper."
)


class BandThresholds(RankThresholds):
    """Where the entries that stay begin, for every model, then where they end."""

    reads: ClassVar[tuple[str, ...]] = ("density", "gamma")

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:
        """Search both ends for `models` tensors with `numel` entries each."""
        shares, tops = (
            np.broadcast_to(np.asarray(parameters[name], np.float64), models).tolist()
            for name in self.reads
        )
        super().__init__(_ranks(numel, shares, tops), numel, exact=True)

    @staticmethod
    def scope(**parameters: Any) -> Scope:  # noqa: ARG004
        """Each tensor has its ends."""
        return "tensor"

    @staticmethod
    def least_passes(**parameters: Any) -> int:
        """None where everything stays."""
        return int(np.min(parameters["density"]) < 1)

    @staticmethod
    def memory(models: int, sampled: int) -> int:
        """Bytes, at the most, for two ends of each model."""
        return RankThresholds.memory(2 * models, sampled)


@method(
    "breadcrumbs",
    unit="block",
    space="delta",
    paper="arXiv:2312.06795",
    departures=_DEPARTURES,
    first_pass=BandThresholds,
)
def breadcrumbs(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1)] = 0.2,
    gamma: Annotated[PerModelNumber, PerModel(), In(0, 1)] = 0.01,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    thresholds: Sequence[float] | Tensor | None = None,
    quota: Sequence[int] | None = None,
) -> Tensor:
    """Drop each tensor's largest and smallest entries and add up the rest: λ Σ wᵢτ̂ᵢ.

    By magnitude, the ⌊dγᵢ⌋ largest of d entries are outliers and fall away; of the others the ⌊dKᵢ⌋
    largest stay. Of equal ones the first count as larger.

    Args:
        deltas: [n, ...], the task vectors, whole unless `thresholds` is given.
        weight: wᵢ; a negative one takes a task away.
        density: Kᵢ, the share of entries that stays.
        gamma: γᵢ, the share of entries that are dropped as outliers; less where K + γ > 1.
        scale: λ.
        thresholds: [2n], of the whole tensors, the smallest magnitudes that stay, then the
            smallest outliers.
        quota: [2n], how many entries equal to each of them a block counts as larger, its first
            ones; −1: all.

    Returns:
        [...], to be added to the base.
    """
    return weighted_sum(_band(deltas, density, gamma, thresholds, quota), weight) * scale


@method(
    "breadcrumbs_ties",
    unit="block",
    space="delta",
    paper="arXiv:2312.06795",
    departures=_DEPARTURES + " Signs are not elected in the paper. Cancelled votes are positive.",
    first_pass=BandThresholds,
)
def breadcrumbs_ties(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1)] = 0.2,
    gamma: Annotated[PerModelNumber, PerModel(), In(0, 1)] = 0.01,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    vote: Vote = "weighted",
    combine: Combine = "mean",
    thresholds: Sequence[float] | Tensor | None = None,
    quota: Sequence[int] | None = None,
) -> Tensor:
    """Drop the largest and smallest entries, elect signs and merge what agrees (TIES).

    Args:
        deltas: [n, ...], the task vectors, whole unless `thresholds` is given.
        weight: wᵢ, each model's say in vote and mean.
        density: as for breadcrumbs.
        gamma: as for breadcrumbs.
        scale: λ.
        vote: as for ties.
        combine: as for ties.
        thresholds: as for breadcrumbs.
        quota: as for breadcrumbs.

    Returns:
        [...], to be added to the base.
    """
    kept = _band(deltas, density, gamma, thresholds, quota)
    return elected(kept, weight=weight, vote=vote, combine=combine, scale=scale)


def _band(
    deltas: Tensor,
    density: PerModelNumber,
    gamma: PerModelNumber,
    thresholds: Sequence[float] | Tensor | None,
    quota: Sequence[int] | None,
) -> Tensor:
    """What stays of the task vectors."""
    models = len(deltas)
    if thresholds is None:
        shares, tops = (one_each(value, models).tolist() for value in (density, gamma))
        ranks = _ranks(deltas[0].numel(), shares, tops)
        first, left = whole_thresholds(deltas, ranks[:models])
        last, more = whole_thresholds(deltas, ranks[models:])
        thresholds, quota = [*first.tolist(), *last.tolist()], [*left, *more]
    low = stays(deltas, thresholds[:models], quota and quota[:models])
    high = stays(deltas, thresholds[models:], quota and quota[models:])
    return deltas.where(low & ~high, 0.0)


def _ranks(numel: int, shares: Sequence[float], tops: Sequence[float]) -> list[int]:
    """The ranks of the smallest entries that stay, then of the smallest outliers."""
    first, last = [], []
    for share, top in zip(shares, tops, strict=True):
        kept = int(share * numel) if share < 1 else numel
        below = max(0, numel - kept - int(top * numel))
        first.append(below + 1 if below else 0)
        last.append(below + kept + 1)
    return first + last
