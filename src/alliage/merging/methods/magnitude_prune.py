"""Magnitude pruning (Han et al. 2015) of task vectors before they are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from alliage.merging.registry import Scope, method, weighted_sum
from alliage.merging.signature import Factor, In, PerModel, PerModelNumber
from alliage.merging.thresholds import TrimThresholds
from alliage.merging.trimming import keep_largest, trim_thresholds

if TYPE_CHECKING:
    from torch import Tensor


class PruneThresholds(TrimThresholds):
    """The thresholds by which exactly ⌊dK⌋ entries stay."""

    reads: ClassVar[tuple[str, ...]] = ("density", "trim")

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:
        """Search the thresholds of `models` vectors with `numel` entries each."""
        super().__init__(models, numel, kept="count", **parameters)


@method(
    "magnitude_prune",
    unit="block",
    space="delta",
    paper="arXiv:1506.02626",
    departures="The paper prunes one model's weights while it is trained; here task vectors are "
    "pruned and added, as PEFT does it.",
    first_pass=PruneThresholds,
)
def magnitude_prune(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1)] = 0.2,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    trim: Scope = "tensor",  # noqa: ARG001  the engine's: here everything is one vector
    thresholds: Sequence[float] | Tensor | None = None,
    quota: Sequence[int] | None = None,
) -> Tensor:
    """Keep each task vector's largest entries and add them up: λ Σ wᵢτ̂ᵢ.

    τ̂ᵢ keeps exactly ⌊dKᵢ⌋ of d entries, those of largest magnitude, and of equal ones the first.

    Args:
        deltas: [n, ...], the task vectors, whole unless `thresholds` is given.
        weight: wᵢ; a negative one takes a task away.
        density: Kᵢ, the share of entries that stays.
        scale: λ.
        trim: what is pruned as one vector: a tensor, a module or the model.
        thresholds: [n], the smallest magnitudes that stay in the whole vectors, for a block.
        quota: [n], how many entries equal to its threshold a block keeps, its first ones; −1: all.

    Returns:
        [...], to be added to the base.
    """
    if thresholds is None:
        thresholds, quota = trim_thresholds(deltas, density, "count")
    return weighted_sum(keep_largest(deltas, thresholds, quota), weight) * scale
