"""LoRA adapters side by side: their weighted sum, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from alliage.merging.registry import method, one_each
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor


def _rank(ranks: Sequence[int], d_out: int, d_in: int, **_: Any) -> tuple[int, bool]:  # noqa: ARG001
    return sum(ranks), True


@method(
    "lora_concat",
    unit="factors",
    space="delta",
    paper="arXiv:2212.04089",
    departures="The paper adds whole task vectors; here the sum of low-rank ones stays low-rank, "
    "as PEFT's combination type cat keeps it.",
    rank=_rank,
)
def lora_concat(
    B: Sequence[Tensor],
    A: Sequence[Tensor],
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(float("-inf"))] = 1.0,
) -> tuple[Tensor, Tensor]:
    """Add the updates exactly: Σ wᵢBᵢAᵢ = [w₁B₁ … wₙBₙ]·[A₁; …; Aₙ].

    The ranks add up; `lora_svd` cuts the sum to a smaller one.

    Args:
        B: n tensors [d_out, rᵢ], the adapters' B; rᵢ = 0 is an adapter without this module.
        A: n tensors [rᵢ, d_in].
        weight: wᵢ; a negative one takes a task away.

    Returns:
        B [d_out, Σr] and A [Σr, d_in].
    """
    import torch

    weights = one_each(weight, len(B))
    scaled = [b * factor for b, factor in zip(B, weights, strict=True)]
    return torch.cat(scaled, dim=1), torch.cat(list(A))
