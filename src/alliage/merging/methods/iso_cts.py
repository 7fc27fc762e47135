"""Isotropic merging in common and task-specific subspaces (Marczak et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method
from alliage.merging.signature import Factor, In
from alliage.merging.spectral import (
    WORK,
    Singular,
    merged_matrices,
    orthogonalised,
    singular,
    svd_seconds,
)

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "iso_cts",
    unit="tensor",
    space="delta",
    paper="arXiv:2502.04959",
    departures="Every matrix is merged so, embeddings too, and kernels of convolutions as "
    "[out, rest]; what is a vector, or has one row or column, becomes the mean. Directions that "
    "are rounding errors of float32 take no part. The common directions are taken out on the "
    "side of the outputs.",
    oriented=True,
    work=WORK,
    seconds=lambda models, *sides, **_: (models + 3) * svd_seconds(*sides),
)
def iso_cts(
    deltas: Tensor,
    *,
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    common: Annotated[float, In(0, 1)] = 0.8,
) -> Tensor:
    """Join common and task-specific directions, each as large as the others.

    The largest directions of Στᵢ are common; the others are shared out: as many of each task's
    largest ones once the common ones are taken out on the left, τᵢ − UUᵀτᵢ. All are put side by
    side and made orthogonal; the result is λσ̄·U⊥V⊥ᵀ, with the mean σ̄ of their singular values.

    Args:
        deltas: [n, ...], one parameter's task vectors.
        scale: λ; the authors try values between 0 and 3, FusionBench takes 1.
        common: the share of the directions that is common; the nearest one by which the others can
            be shared out evenly.

    Returns:
        [...], to be added to the base.
    """
    return merged_matrices(deltas, lambda matrices: _merge(matrices, common)) * scale


def _merge(deltas: Tensor, common: float) -> Tensor:
    import torch

    size, models = min(deltas.shape[1:]), len(deltas)
    own = min(round((size - int(size * common)) / models), size // models)
    shared = singular(deltas.sum(dim=0, dtype=torch.float64)).largest(size - own * models)
    kept = [shared]
    kept += [_own(delta.double(), shared).largest(own) for delta in deltas if own]
    left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*kept, strict=True))
    if not len(values):
        return torch.zeros_like(deltas[0])
    return (orthogonalised(left) @ orthogonalised(right).mT).mul_(values.mean())


def _own(delta: Tensor, shared: Singular) -> Singular:
    """A task's directions beside the common ones."""
    rest = delta - shared.left @ (shared.left.mT @ delta)
    return singular(rest, norm=float(delta.norm()))
