"""Core Space (Panariello et al. 2025): LoRA updates merged as small matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from alliage.merging.low_rank import joined, left_basis, split_evenly, thin_svd
from alliage.merging.registry import method
from alliage.merging.rules import Apply, by_rule
from alliage.merging.signature import Rule

if TYPE_CHECKING:
    from torch import Tensor


def _rank(ranks: Sequence[int], d_out: int, d_in: int, **_: Any) -> tuple[int, bool]:
    return min(sum(ranks), d_out, d_in), True


@method(
    "core_space",
    unit="factors",
    space="delta",
    paper="arXiv:2509.17786",
    departures="The paper takes the bases from the factors as they are, so that a rule that is not "
    "linear depends on how B and A share their sizes; balanced takes them from the updates. "
    "Directions of singular values that are zero are left out. The authors trim each module by "
    "itself (trim: module); a rule's own default may be the model as one vector, as of TIES.",
    rank=_rank,
)
def core_space(
    B: Sequence[Tensor],
    A: Sequence[Tensor],
    *,
    rule: Annotated[str, Rule()] = "task_arithmetic",
    balanced: bool = False,
    apply: Apply = by_rule,
    **parameters: Any,
) -> tuple[Tensor, Tensor]:
    """Merge the cores Mᵢ = U_BᵀBᵢAᵢV_A of the updates, without loss: ΔWᵢ = U_B Mᵢ V_Aᵀ.

    U_B are the left singular vectors of [B₁ … Bₙ], V_A the right ones of [A₁; …; Aₙ]; the rule
    merges matrices of at most Σr × Σr, and the result is U_B·merged·V_Aᵀ.

    Args:
        B: n tensors [d_out, rᵢ], the adapters' B; rᵢ = 0 is an adapter without this module.
        A: n tensors [rᵢ, d_in].
        rule: the method that merges the cores, with its own parameters beside it.
        balanced: first write each update as U√S·√SVᵀ: the result does not depend on its factors.
        apply: how the rule is applied; as it stands, each module is one vector to it.
        parameters: of the rule.

    Returns:
        B [d_out, k] and A [k, d_in], k ≤ Σr.
    """
    import torch

    if balanced:
        pairs = [thin_svd(b.double(), a.double()) for b, a in zip(B, A, strict=True)]
        B, A = zip(*(split_evenly(*pair) for pair in pairs), strict=True)
    stacked_B, stacked_A = joined(B, A)
    U, V = left_basis(stacked_B), left_basis(stacked_A.T)
    if not U.shape[1] or not V.shape[1]:
        return B[0].new_zeros(len(B[0]), 0), A[0].new_zeros(0, A[0].shape[1])
    cores = [(U.T @ b.double()) @ (a.double() @ V) for b, a in zip(B, A, strict=True)]
    merged = apply(rule, torch.stack(cores).float(), parameters).double()
    if U.shape[1] <= V.shape[1]:
        return U.float(), (merged @ V.T).float()
    return (U @ merged).float(), V.T.float()
