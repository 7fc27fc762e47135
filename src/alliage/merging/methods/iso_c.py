"""Isotropic merging in the common subspace (Marczak et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method
from alliage.merging.signature import Factor, In
from alliage.merging.spectral import WORK, merged_matrices, singular, svd_seconds

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "iso_c",
    unit="tensor",
    space="delta",
    paper="arXiv:2502.04959",
    departures="Every matrix is merged so, embeddings too, and kernels of convolutions as "
    "[out, rest]; what is a vector, or has one row or column, becomes the mean. Directions that "
    "are rounding errors of float32 are left out instead of being made as large as the others; "
    "the mean is over those that there are, so that the nuclear norm stays.",
    work=WORK,
    seconds=lambda _, *sides, **__: svd_seconds(*sides),
)
def iso_c(deltas: Tensor, *, scale: Annotated[float, In(float("-inf")), Factor()] = 1.0) -> Tensor:
    """Add the task matrices and make all singular values of the sum their mean.

    Στᵢ = U·diag(σ)·Vᵀ becomes λσ̄·UVᵀ.

    Args:
        deltas: [n, ...], one parameter's task vectors.
        scale: λ; the authors try values between 0 and 3, FusionBench takes 1.

    Returns:
        [...], to be added to the base.
    """
    return merged_matrices(deltas, _merge) * scale


def _merge(deltas: Tensor) -> Tensor:
    import torch

    found = singular(deltas.sum(dim=0, dtype=torch.float64))
    if not len(found.values):
        return torch.zeros_like(deltas[0])
    return (found.left @ found.right.mT).mul_(found.values.mean())
