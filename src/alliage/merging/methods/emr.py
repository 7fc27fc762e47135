"""EMR-Merging (Huang et al. 2024): elect one vector, mask and rescale it for each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alliage.merging.registry import Masks, method, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


def agreeing(deltas: Tensor, merged: Tensor, **_: Any) -> Tensor:
    """The masks Mᵢ: where τᵢ and the unified vector have one sign, bool [n, ...]."""
    return (deltas > 0) & (merged > 0) | (deltas < 0) & (merged < 0)  # a product may underflow


@method(
    "emr",
    unit="block",
    space="delta",
    paper="arXiv:2405.17461",
    departures="Where Σ τᵢ is exactly zero the sign is negative, as in the authors' code; the "
    "paper's is zero. The scales are the paper's ratios over the whole model; the authors' code "
    "adds up means of tensors, so that small tensors count as much as large ones. The merged "
    "weights are rounded to the output's type before a task is rebuilt from them.",
    masks=Masks(agreeing, rescale=True),
    identical=True,
)
def emr(deltas: Tensor) -> Tensor:
    """Elect a sign for each parameter, and take the largest entry that has it.

    γ = sgn Σ τᵢ; the unified vector is γ·max |τᵢ| over those with the sign γ, and zero where there
    is none. It is too large to be a model of its own. Beside it lie, for each task, the mask
    Mᵢ = [τᵢ·unified > 0], one bit for a parameter, and the scale λᵢ = Σ|τᵢ| / Σ|Mᵢ∘unified|;
    base + λᵢMᵢ∘unified is near the task's own model.

    Args:
        deltas: [n, ...], the task vectors.

    Returns:
        [...], to be added to the base.
    """
    import torch

    positive = weighted_sum(deltas, 1.0) > 0
    largest = torch.where(positive, deltas, -deltas).clamp_(min=0).amax(dim=0)
    return torch.where(positive, largest, -largest)
