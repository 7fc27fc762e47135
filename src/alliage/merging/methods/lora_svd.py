"""The weighted sum of LoRA adapters, cut to the rank that loses least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from alliage.merging.low_rank import joined, split_evenly, thin_svd
from alliage.merging.registry import method, one_each
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor


def _rank(
    ranks: Sequence[int], d_out: int, d_in: int, *, rank: int, energy: float, **_: Any
) -> tuple[int, bool]:
    return min(sum(ranks), d_out, d_in, _limit(ranks, rank, energy)), energy == 1


def _limit(ranks: Sequence[int], rank: int, energy: float) -> int:
    """The largest rank allowed."""
    if rank:
        return rank
    return max(ranks) if energy == 1 else sum(ranks)


@method(
    "lora_svd",
    unit="factors",
    space="delta",
    paper="doi:10.1007/BF02288367",
    departures="Eckart and Young cut one matrix; here it is the sum of task vectors "
    "(arXiv:2212.04089), as in PEFT's combination type svd.",
    rank=_rank,
)
def lora_svd(
    B: Sequence[Tensor],
    A: Sequence[Tensor],
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
    rank: Annotated[int, In(0)] = 0,
    energy: Annotated[float, In(0, 1, open_low=True)] = 1.0,
) -> tuple[Tensor, Tensor]:
    """Add the updates and cut the sum: the best approximation of Σ wᵢBᵢAᵢ of a smaller rank.

    With QR of the stacked factors, Σ wᵢBᵢAᵢ = Q_B R_B R_Aᵀ Q_Aᵀ, and the singular values are those
    of the small R_B R_Aᵀ. The result's factors are U√S and √SVᵀ.

    Args:
        B: n tensors [d_out, rᵢ], the adapters' B; rᵢ = 0 is an adapter without this module.
        A: n tensors [rᵢ, d_in].
        weight: wᵢ; a negative one takes a task away.
        rank: the most singular values that stay in a module; 0: as many as its largest adapter
            has, or, with `energy` below 1, no limit.
        energy: as few singular values stay as have this share of the sum of their squares.

    Returns:
        B [d_out, k] and A [k, d_in].
    """
    weights = one_each(weight, len(B))
    U, S, Vt = thin_svd(*joined([b * w for b, w in zip(B, weights, strict=True)], A))
    count = min(len(S), _limit([b.shape[1] for b in B], rank, energy))
    if energy < 1 and len(S):
        share = (S**2).cumsum(0) / (S**2).sum()
        count = min(count, int((share < energy).sum()) + 1)
    return split_evenly(U[:, :count], S[:count], Vt[:count])
