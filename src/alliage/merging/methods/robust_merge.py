"""RobustMerge (Zeng et al. 2025): pruned LoRA factors, scaled so that their directions hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method, per_model
from alliage.merging.signature import In, PerModel, PerModelNumber
from alliage.merging.trimming import keep_largest, trim_thresholds

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "robust_merge",
    unit="factors",
    space="delta",
    paper="arXiv:2502.17159",
    departures="It follows the authors' code: the weight 2 stands on both factors, and A is summed "
    "where B is divided by Σ sᵢ. A row of A that is zero, which makes 0/0 there, is scaled by 1.",
)
def robust_merge(
    B: Sequence[Tensor],
    A: Sequence[Tensor],
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 2.0,
    density: Annotated[float, In(0, 1, open_low=True)] = 0.2,
    share: Annotated[float, In(0, 1)] = 0.2,
) -> tuple[Tensor, Tensor]:
    """Prune both factors, scale up what pruning took from A's rows, normalise across the tasks.

    Âᵢ and B̂ᵢ keep the entries with magnitudes from the ⌊d(1 − K)⌋-th smallest on. sᵢ = Σ|Aᵢ| /
    Σ|Âᵢ| for each row of A, raised to the ⌊r(1 − share)⌋-th from below where it is smaller. The
    result is A = Σ wᵢÂᵢ and B = Σ wᵢB̂ᵢsᵢ / Σ sᵢ, by columns. Like averaged factors it has cross
    terms, and depends on how an update is written as a product.

    Args:
        B: n tensors [d_out, r], the adapters' B.
        A: n tensors [r, d_in], the adapters' A.
        weight: wᵢ, of both factors: w² is that of the product.
        density: K, the share of each factor's entries that stays.
        share: of the rows, those whose own scale is used: the largest.

    Returns:
        B [d_out, r] and A [r, d_in].
    """
    import torch

    stacked_B, stacked_A = torch.stack(list(B)), torch.stack(list(A))
    pruned_A = _pruned(stacked_A, density)
    before, after = (t.double().abs().sum(dim=2) for t in (stacked_A, pruned_A))
    scales = torch.where(after > 0, before / after.where(after > 0, 1.0), 1.0)
    rank = scales.shape[1]
    least = scales.sort(dim=1).values[:, min(int(rank * (1 - share)), rank - 1)]
    scales = scales.maximum(least[:, None]).to(stacked_B.dtype)[:, None, :]
    scaled = _pruned(stacked_B, density) * per_model(weight, stacked_B) * scales
    total = pruned_A * per_model(weight, stacked_A)
    return scaled.sum(dim=0) / scales.sum(dim=0), total.sum(dim=0)


def _pruned(factors: Tensor, density: float) -> Tensor:
    return keep_largest(factors, *trim_thresholds(factors, density, "kth"))
