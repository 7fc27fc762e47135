"""Task singular vectors, merged (Gargiulo et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method
from alliage.merging.signature import Factor, In
from alliage.merging.spectral import WORK, merged_matrices, orthogonalised, singular, svd_seconds

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "tsv_m",
    unit="tensor",
    space="delta",
    paper="arXiv:2412.00081",
    departures="Every matrix is merged so, embeddings too, and kernels of convolutions as "
    "[out, rest]; what is a vector, or has one row or column, becomes the mean. Directions that "
    "are rounding errors of float32 take no part, and dependent ones share their place instead of "
    "being completed by chance. With more models than ranks each keeps one direction, not none.",
    work=WORK,
    seconds=lambda models, *sides, **_: (models + 2) * svd_seconds(*sides),
)
def tsv_m(deltas: Tensor, *, scale: Annotated[float, In(float("-inf")), Factor()] = 1.0) -> Tensor:
    """Keep each task's largest singular directions and make all of them orthogonal.

    Of each matrix τᵢ = UᵢSᵢVᵢᵀ the largest 1/n of its directions stay. Side by side they are U, S
    and V; the result is λ·U⊥SV⊥ᵀ, where U⊥ and V⊥ are the nearest orthonormal columns.

    Args:
        deltas: [n, ...], one parameter's task vectors.
        scale: λ; the authors try values between 0 and 3, FusionBench takes 1.

    Returns:
        [...], to be added to the base.
    """
    return merged_matrices(deltas, _merge) * scale


def _merge(deltas: Tensor) -> Tensor:
    import torch

    count = max(1, min(deltas.shape[1:]) // len(deltas))
    kept = [singular(delta.double()).largest(count) for delta in deltas]
    left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*kept, strict=True))
    return (orthogonalised(left) * values) @ orthogonalised(right).mT
