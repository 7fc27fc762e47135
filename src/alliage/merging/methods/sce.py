"""SCE (Wan et al. 2024): select where models differ, calculate their weights, erase minorities."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from alliage.merging.methods.ties import elected
from alliage.merging.products import ExactSum
from alliage.merging.registry import PerBlock, Scope, method, partial_sums
from alliage.merging.signature import In
from alliage.merging.thresholds import RankThresholds
from alliage.merging.trimming import stays, whole_thresholds

if TYPE_CHECKING:
    from torch import Tensor


class Selection:
    """Where a tensor's models differ most, and the models' weights, as a first pass.

    It counts the positions where they differ at all, finds the variance that the wanted share of
    these has or exceeds, and adds up the squares of what is selected.
    """

    reads: ClassVar[tuple[str, ...]] = ("density", "floor")

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:
        """Start with nothing seen."""
        self._numel = numel
        self._density: float = parameters["density"]
        self._floor: float = parameters["floor"]
        self._differing = 0
        self._samples: list[Tensor] = []
        self._search: RankThresholds | None = None
        everything = {"thresholds": [0.0]}
        self._selected: Mapping[str, Any] | None = everything if self._density >= 1 else None
        self._squares = [ExactSum() for _ in range(models)]
        self._seen = False  # in this pass
        self._lock = threading.Lock()

    @staticmethod
    def scope(**parameters: Any) -> Scope:  # noqa: ARG004
        """Each tensor has its positions and weights."""
        return "tensor"

    @staticmethod
    def least_passes(**parameters: Any) -> int:
        """One for the weights, and one for the selection where there is one."""
        return 2 if parameters["density"] < 1 else 1

    @staticmethod
    def memory(models: int, sampled: int) -> int:  # noqa: ARG004
        """Bytes of one histogram."""
        return RankThresholds.memory(1, sampled)

    def sample(self, tensors: Tensor) -> None:
        """Take slices [n, m] for the search."""
        if self._selected is None:
            variance = _variance(tensors)
            with self._lock:
                self._samples.append(variance)

    def update(self, tensors: Tensor, place: int, uniform: Tensor | None = None) -> None:  # noqa: ARG002
        """See a block [n, m] for what is looked for now."""
        self._seen = True
        if self._selected is not None:
            quota = self._selected.get("quota")
            kept = _select(tensors, self._selected["thresholds"], quota and quota[place])
            squares = [partial_sums(row.double().square_()) for row in kept]
            with self._lock:
                for total, sums in zip(self._squares, squares, strict=True):
                    total.add(sums)
        elif self._search is not None:
            self._search.update(_variance(tensors), place)
        else:
            differing = int(_variance(tensors).count_nonzero())
            with self._lock:
                self._differing += differing

    def result(self) -> Mapping[str, Any] | None:
        """The {"threshold": float, "quota": for each block, "shares": [n]}."""
        if not self._seen:
            return None
        self._seen = False
        if self._selected is None:
            if self._search is None:
                rank = _rank(self._numel, self._differing, self._density)
                self._search = RankThresholds([rank], self._numel, exact=True)
                for variance in self._samples:
                    self._search.sample(variance)
                self._samples = []
            self._selected = self._search.result()
            return None
        quota = self._selected.get("quota", ())
        return {
            "threshold": self._selected["thresholds"][0],
            "shares": _shares([each.total() for each in self._squares], self._numel, self._floor),
            **({"quota": PerBlock(each[0] for each in quota)} if quota else {}),
        }


@method(
    "sce",
    unit="block",
    space="delta",
    paper="arXiv:2408.07990",
    departures="As in the authors' code the share is that of the positions where models differ at "
    "all, so that one model alone has none. Signs whose sum is zero are positive. `floor` is "
    "mergekit's.",
    first_pass=Selection,
)
def sce(
    deltas: Tensor,
    *,
    density: Annotated[float, In(0, 1)] = 0.1,
    floor: Annotated[float, In(0)] = 0.0,
    threshold: float | None = None,
    quota: int | None = None,
    shares: Sequence[float] | None = None,
) -> Tensor:
    """Average what agrees in sign, where models differ most, by the size of their changes there.

    Select: τ̂ᵢ keeps the ⌊cK⌋ positions of largest variance between the models, of the c where there
    is any. Calculate: wᵢ is the share of τ̂ᵢ in Σⱼ mean(τ̂ⱼ²), for each tensor. Erase: entries whose
    sign is not that of Σ τ̂ᵢ fall away. The rest is averaged: Σ wᵢτ̂ᵢ / Σ wᵢ.

    Args:
        deltas: [n, ...], the task vectors, whole unless `threshold` and `shares` are given.
        density: K, the share of the positions that differ; at 1 all positions are selected.
        floor: where Σⱼ mean(τ̂ⱼ²) is less, all weights are equal; so they are where it is zero.
        threshold: the smallest variance that is selected in the whole tensor, for a block of it.
        quota: how many positions of this very variance a block selects, its first ones; −1: all.
        shares: [n], the wᵢ of the whole tensor.

    Returns:
        [...], to be added to the base.
    """
    thresholds = None if threshold is None else [threshold]
    left = None if quota is None else [quota]
    if thresholds is None and density < 1:
        variance = _variance(deltas)
        numel, differing = variance.numel(), int(variance.count_nonzero())
        limits, left = whole_thresholds(variance, [_rank(numel, differing, density)])
        thresholds = limits.tolist()
    kept = _select(deltas, thresholds or [0.0], left)
    if shares is None:
        sums = [math.fsum(partial_sums(row.flatten().double().square())) for row in kept]
        shares = _shares(sums, deltas[0].numel(), floor)
    return elected(kept, weight=deltas.new_tensor(shares), vote="sum")


def _variance(deltas: Tensor) -> Tensor:
    """[1, ...], between the models, and exactly zero where they are equal."""
    import torch

    mean = torch.zeros_like(deltas[0], dtype=torch.float64)
    for delta in deltas:
        mean += delta
    mean /= len(deltas)
    total = torch.zeros_like(mean)
    for delta in deltas:
        total += (delta - mean).square_()
    return total.div_(len(deltas)).float()[None]


def _select(deltas: Tensor, threshold: Sequence[float], quota: Sequence[int] | None) -> Tensor:
    if threshold == [0.0]:
        return deltas
    return deltas.where(stays(_variance(deltas), threshold, quota), 0.0)


def _rank(numel: int, differing: int, density: float) -> int:
    """Of the smallest variance that is selected."""
    return numel - int(differing * density) + 1


def _shares(sums: Sequence[float], numel: int, floor: float) -> list[float]:
    total = math.fsum(sums)
    if total == 0 or total / numel < floor:
        return [1 / len(sums)] * len(sums)
    return [each / total for each in sums]
