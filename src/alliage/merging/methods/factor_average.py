"""Averaged LoRA factors (Zhang et al. 2023; Fosse 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import In, PerModel, PerModelNumber, method, per_model, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "factor_average",
    unit="factors",
    space="delta",
    paper="arXiv:2306.14870",
    departures="The paper has equal weights.",
)
def factor_average(
    B: Tensor, A: Tensor, *, weight: Annotated[PerModelNumber, PerModel(), In(0)] = 1.0
) -> tuple[Tensor, Tensor]:
    """Average the factors: B = Σ wᵢBᵢ / Σ wᵢ and A = Σ wᵢAᵢ / Σ wᵢ.

    This is not the average of the updates BᵢAᵢ: it has cross terms BᵢAⱼ, and it changes when one
    adapter is written with other factors (BR, R⁻¹A) of the same product.

    Args:
        B: [n, d_out, r], the adapters' B.
        A: [n, r, d_in], the adapters' A.
        weight: wᵢ, the share of each adapter; only their ratios count.

    Returns:
        B [d_out, r] and A [r, d_in].
    """
    shares = per_model(weight, B).flatten().double()
    shares = (shares / shares.sum()).to(B.dtype)
    return weighted_sum(B, shares), weighted_sum(A, shares)
