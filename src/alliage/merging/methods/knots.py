"""KnOTS (Stoica et al. 2025): LoRA updates merged in a basis of outputs that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from alliage.merging.low_rank import common_left_basis
from alliage.merging.registry import method
from alliage.merging.rules import Apply, by_rule
from alliage.merging.signature import Rule

if TYPE_CHECKING:
    from torch import Tensor


def _rank(ranks: Sequence[int], d_out: int, d_in: int, **_: Any) -> tuple[int, bool]:  # noqa: ARG001
    return min(sum(ranks), d_out), True


@method(
    "knots",
    unit="factors",
    space="delta",
    paper="arXiv:2410.19735",
    departures="Singular values are zero where rounding alone can make them, not below 1e-5.",
    rank=_rank,
)
def knots(
    B: Sequence[Tensor],
    A: Sequence[Tensor],
    *,
    rule: Annotated[str, Rule()] = "ties",
    apply: Apply = by_rule,
    **parameters: Any,
) -> tuple[Tensor, Tensor]:
    """Align the updates by one SVD, merge their coordinates, go back.

    With SVD[ΔW₁ | … | ΔWₙ] = UΣ[V₁ | … | Vₙ], each update is U·ΣVᵢ; the rule merges the ΣVᵢ, and
    the result is U·merged. U comes from the factors, and ΣVᵢ = (UᵀBᵢ)Aᵢ. What the rule trims as one
    vector (trim: model), it trims over the coordinates of all modules, as the authors do.

    Args:
        B: n tensors [d_out, rᵢ], the adapters' B; rᵢ = 0 is an adapter without this module.
        A: n tensors [rᵢ, d_in].
        rule: the method that merges the ΣVᵢ, with its own parameters beside it; TIES in the paper.
        apply: how the rule is applied; as it stands, each module is one vector to it.
        parameters: of the rule.

    Returns:
        B [d_out, k], orthonormal, and A [k, d_in], k the rank of the updates side by side.
    """
    import torch

    U = common_left_basis(B, A)
    if not U.shape[1]:
        return U.float(), A[0].new_zeros(0, A[0].shape[1])
    aligned = torch.stack([(U.T @ b.double()) @ a.double() for b, a in zip(B, A, strict=True)])
    return U.float(), apply(rule, aligned.float(), parameters)
