"""TIES (Yadav et al. 2023): trim, elect signs, merge what agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from alliage.merging.registry import Scope, method, per_model, weighted_sum
from alliage.merging.signature import Factor, In, PerModel, PerModelNumber
from alliage.merging.thresholds import TrimThresholds
from alliage.merging.trimming import keep_largest, trim_thresholds
from alliage.order_statistics import Kept

if TYPE_CHECKING:
    from torch import Tensor

Vote = Literal["weighted", "sum", "count", "none"]
Zero = Literal["majority", "positive", "drop"]
Combine = Literal["mean", "signed_mean", "sum", "sum_by_count", "mean_of_all"]


class MajoritySign:
    """The sign that most parameters elect, for those whose votes cancel exactly.

    It is needed only where the vote is exactly zero though some τ̂ᵢ is not; so it is guessed to be
    positive, counted on the way, and such blocks are merged again if the count says otherwise.
    """

    guessed: Mapping[str, Any] = {"majority": 1.0}

    def look(self, tensors: Tensor, **arguments: Any) -> tuple[int, bool]:
        """A block's elected signs, + less −; whether some of its votes cancel exactly."""
        if arguments["vote"] == "none" or arguments.get("signs") is not None:
            return 0, False
        kept = keep_largest(tensors, arguments["thresholds"], arguments.get("quota"))
        votes = _votes(kept, arguments["weight"], arguments["vote"])
        cancelled = bool(((votes == 0) & (kept != 0).any(dim=0)).any())
        depends = cancelled and arguments["zero"] == "majority"
        return int((votes > 0).sum() - (votes < 0).sum()), depends

    def settle(self, count: int) -> Mapping[str, Any]:
        """The majority over all blocks: 1, −1, or 0 where neither sign has it."""
        return {"majority": float((count > 0) - (count < 0))}


@method(
    "ties",
    unit="block",
    space="delta",
    paper="arXiv:2306.01708",
    departures="Weights wᵢ are not in the paper: they multiply the trimmed vectors in the vote and "
    "in the mean, which divides by their magnitudes; equal weights are the paper's method. Where "
    "the signs of all parameters balance exactly, votes that cancel take the negative side, as the "
    "authors' code does. trim, kept, vote, zero and combine are other projects' readings of the "
    "paper and its own ablations (section 7.3): vote none elects nothing, combine mean_of_all is "
    "the mean that is not disjoint. Given signs of zero drop their entries; the authors' code "
    "takes the negative side.",
    first_pass=TrimThresholds,
    guess=MajoritySign(),
)
def ties(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    density: Annotated[PerModelNumber, PerModel(), In(0, 1, open_low=True)] = 0.2,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    trim: Scope = "model",  # noqa: ARG001  the engine's: here everything is one vector
    kept: Kept = "threshold",
    vote: Vote = "weighted",
    zero: Zero = "majority",
    combine: Combine = "mean",
    thresholds: Sequence[float] | Tensor | None = None,
    quota: Sequence[int] | None = None,
    majority: float | None = None,
    signs: Tensor | None = None,
) -> Tensor:
    """Keep the largest entries, elect a sign for each parameter, average those that agree with it.

    τ̂ᵢ keeps the entries with |τᵢ| ≥ tᵢ, the (d − ⌊dK⌋)-th smallest magnitude of the whole vector;
    γ = sgn Σ wᵢτ̂ᵢ, with the majority of all signs where that sum is zero; the result is λ times the
    weighted mean of the non-zero wᵢτ̂ᵢ whose sign is γ (where the vote is not weighted: that of
    τ̂ᵢ), and zero where there is none.

    Args:
        deltas: [n, ...], the task vectors, whole unless `thresholds` is given.
        weight: wᵢ, each model's say in vote and mean; a negative one takes a task away.
        density: Kᵢ, the share of entries that trimming keeps; 0.2 in the paper.
        scale: λ; 1 is the paper's recipe without a validation set.
        trim: what is trimmed as one vector: the model, as in the paper, a module or a tensor.
        kept: "threshold": all that equals the paper's tᵢ or more; "kth": tᵢ is the ⌊d(1 − K)⌋-th
            smallest; "count": exactly ⌊dK⌋ entries, of equal ones the first; "count_or_one": one
            at least.
        vote: γ is the sign of Σ wᵢτ̂ᵢ, of the "sum" Σ τ̂ᵢ, or of the "count" Σ sgn τ̂ᵢ; "none": no
            sign is elected, and all that trimming keeps agrees.
        zero: where the vote is zero: the majority of all signs, positive, or drop the entry.
        combine: what agrees becomes its "mean" Σwτ̂/Σ|w|, which has the sign of a weighted vote;
            "signed_mean", Σwτ̂/Σw, mergekit's, which negative weights can turn round or blow up; its
            "sum" Σwτ̂; "sum_by_count", Σwτ̂ divided by how many agree; or "mean_of_all", Σwτ̂ divided
            by the Σ|w| of all models.
        thresholds: [n], the tᵢ of the whole vectors, for a block of them.
        quota: [n], how many entries equal to tᵢ a block keeps, its first ones; −1: all.
        majority: 1, −1 or 0, the majority sign of the whole merge, for a block of it.
        signs: [...], γ itself in place of the elected one: a multi-task model's, or an estimate of
            it from a few examples (sections 7.4 and B.1); where it is zero, the result is.

    Returns:
        [...], to be added to the base.
    """
    import torch

    if thresholds is None:
        thresholds, quota = trim_thresholds(deltas, density, kept)
    trimmed = keep_largest(deltas, thresholds, quota)
    everyone = vote == "none" and signs is None
    votes = signs.to(deltas.dtype) if signs is not None else _votes(trimmed, weight, vote)
    zero = "drop" if signs is not None else zero
    if majority is None:
        majority = float(votes.sign().sum().sign())
    up = zero == "positive" or (zero == "majority" and majority > 0)
    positive = votes >= 0 if up else votes > 0
    negative = votes < 0 if up or zero == "drop" else votes <= 0
    total, shares = torch.zeros_like(votes), torch.zeros_like(votes)
    for entry, factor in zip(trimmed, per_model(weight, deltas), strict=True):
        weighted = entry * factor
        voter = weighted if vote == "weighted" else entry
        agrees = torch.where(voter > 0, positive, negative & (voter < 0))
        agrees = entry != 0 if everyone else agrees
        total += torch.where(agrees, weighted, 0.0)
        if combine == "mean_of_all":
            shares += factor.abs()
        elif combine != "sum":
            share = {"mean": factor.abs(), "signed_mean": factor}.get(combine, 1.0)
            shares += agrees * share
    if combine != "sum":
        total = total.div_(shares.where(shares != 0, 1.0))
    return total.mul_(scale)


def elected(
    kept: Tensor,
    *,
    weight: PerModelNumber,
    vote: Vote,
    combine: Combine = "mean",
    scale: float = 1.0,
) -> Tensor:
    """TIES of task vectors [n, ...] of which all stays; cancelled votes are positive."""
    return ties(
        kept, weight=weight, scale=scale, vote=vote, zero="positive", combine=combine,
        thresholds=[0.0] * len(kept), majority=1.0,
    )  # fmt: skip


def _votes(trimmed: Tensor, weight: PerModelNumber, vote: Vote) -> Tensor:
    if vote == "weighted":
        return weighted_sum(trimmed, weight)
    return weighted_sum(trimmed if vote == "sum" else trimmed.sign(), 1.0)
