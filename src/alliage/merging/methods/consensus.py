"""TALL masks and their consensus (Wang et al. 2024): what a merge keeps of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from alliage.merging.methods.ties import MajoritySign, ties
from alliage.merging.registry import Masks, Scope, method, per_model, weighted_sum
from alliage.merging.signature import Factor, In, PerModel, PerModelNumber
from alliage.merging.thresholds import TrimThresholds
from alliage.order_statistics import Kept

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "consensus",
    unit="block",
    space="delta",
    paper="arXiv:2405.07813",
    departures="The paper tunes λₜ and the scale on validation sets; the defaults here are the "
    "middle of its grid and task arithmetic's. agree counts as the number of models where it is "
    "larger; the authors' code then keeps nothing. What equals λₜ|τ_MTL − τₜ| is selected, as in "
    "the paper; their code leaves it out.",
)
def consensus(
    deltas: Tensor,
    *,
    strictness: Annotated[PerModelNumber, PerModel(), In(0)] = 0.4,
    agree: Annotated[int, In(0)] = 2,
    scale: Annotated[float, In(float("-inf")), Factor()] = 0.4,
) -> Tensor:
    """Add the task vectors where enough tasks find themselves in the sum.

    τ_MTL = Σ τₜ; mₜ = |τₜ| ≥ λₜ|τ_MTL − τₜ|; the result is the scale times τ_MTL where Σ mₜ reaches
    `agree`, and zero elsewhere. Entries that no mask selects are "catastrophic": they serve no
    task; those that only one selects are "selfish": they serve one and disturb the others.

    Args:
        deltas: [n, ...], the task vectors.
        strictness: λₜ, from 0; the larger, the fewer entries a task selects. The paper tries 0.2 to
            0.6.
        agree: how many tasks must select an entry, from 0: 1 drops the catastrophic entries, 2 the
            selfish ones too, 0 nothing (task arithmetic).
        scale: what the sum is multiplied by.

    Returns:
        [...], to be added to the base.
    """
    return _agreed(deltas, weighted_sum(deltas, 1.0), strictness, agree) * scale


class UnweightedMajority(MajoritySign):
    """The majority sign of a TIES without weights, in which votes that cancel take it."""

    def look(self, tensors: Tensor, **arguments: Any) -> tuple[int, bool]:
        """As for ties."""
        return super().look(tensors, **arguments, weight=1.0, vote="sum", zero="majority")


@method(
    "consensus_ties",
    unit="block",
    space="delta",
    paper="arXiv:2405.07813",
    departures="As for consensus; and trim and kept are other projects' readings of TIES.",
    first_pass=TrimThresholds,
    guess=UnweightedMajority(),
)
def consensus_ties(
    deltas: Tensor,
    *,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1, open_low=True)] = 0.2,
    strictness: Annotated[PerModelNumber, PerModel(), In(0)] = 0.4,
    agree: Annotated[int, In(0)] = 2,
    scale: Annotated[float, In(float("-inf")), Factor()] = 0.4,
    trim: Scope = "model",
    kept: Kept = "threshold",
    thresholds: Sequence[float] | Tensor | None = None,
    quota: Sequence[int] | None = None,
    majority: float | None = None,
) -> Tensor:
    """Merge the task vectors by TIES where enough tasks find themselves in the result.

    As consensus, but τ_MTL is what TIES makes of the task vectors with the sum of what agrees. The
    masks compare it with τₜ as they are, not trimmed, as the authors' code does.

    Args:
        deltas: [n, ...], the task vectors, whole unless `thresholds` is given.
        density: Kᵢ, the share of entries that TIES' trimming keeps.
        strictness: λₜ, as for consensus.
        agree: how many tasks must select an entry, as for consensus.
        scale: what the result is multiplied by.
        trim: as for ties.
        kept: as for ties.
        thresholds: as for ties.
        quota: as for ties.
        majority: as for ties.

    Returns:
        [...], to be added to the base.
    """
    merged = ties(
        deltas, density=density, trim=trim, kept=kept, combine="sum", thresholds=thresholds,
        quota=quota, majority=majority,
    )  # fmt: skip
    return _agreed(deltas, merged, strictness, agree) * scale


def _agreed(deltas: Tensor, merged: Tensor, strictness: PerModelNumber, agree: int) -> Tensor:
    """What enough masks select of a merged vector."""
    selecting = selected(deltas, merged, strictness).sum(dim=0)
    return merged.where(selecting >= min(agree, len(deltas)), 0.0)


def selected(deltas: Tensor, merged: Tensor, strictness: PerModelNumber, **_: Any) -> Tensor:
    """The TALL masks mₜ = |τₜ| ≥ λₜ|τ_MTL − τₜ|, bool [n, ...]."""
    return deltas.abs() >= (merged - deltas).abs() * per_model(strictness, deltas)


@method(
    "tall_masks",
    unit="block",
    space="delta",
    paper="arXiv:2405.07813",
    departures="The paper tunes λₜ on validation sets; the default is the middle of its grid. What "
    "equals λₜ|τ_MTL − τₜ| is selected, as in the paper; the authors' code leaves it out. The "
    "merged weights are rounded to the output's type before a task is rebuilt from them.",
    masks=Masks(selected, rescale=False),
)
def tall_masks(
    deltas: Tensor,
    *,
    strictness: Annotated[PerModelNumber, PerModel(), In(0)] = 0.4,  # noqa: ARG001  the masks'
) -> Tensor:
    """Add the task vectors, and keep for each task a mask that finds it in the sum.

    τ_MTL = Σ τₜ. Beside the merged model lies, for each task, the mask mₜ = |τₜ| ≥ λₜ|τ_MTL − τₜ|,
    one bit for a parameter; base + mₜ∘τ_MTL is near the task's own model.

    Args:
        deltas: [n, ...], the task vectors.
        strictness: λₜ of the masks, from 0; the larger, the fewer entries they select. The paper
            tries 0.2 to 0.6.

    Returns:
        [...], to be added to the base.
    """
    return weighted_sum(deltas, 1.0)
