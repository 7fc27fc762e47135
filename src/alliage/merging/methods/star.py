"""Spectral truncation and rescale (Lee et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method
from alliage.merging.signature import In
from alliage.merging.spectral import WORK, merged_matrices, singular, svd_seconds

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "star",
    unit="tensor",
    space="delta",
    paper="arXiv:2502.10339",
    departures="Every matrix is truncated, embeddings too, and kernels of convolutions as "
    "[out, rest]; what is a vector, or has one row or column, is averaged as it is.",
    work=WORK,
    seconds=lambda models, *sides, **_: models * svd_seconds(*sides),
)
def star(deltas: Tensor, *, eta: Annotated[float, In(0, 1, open_low=True)] = 0.4) -> Tensor:
    """Keep each task's largest singular directions, rescale them to its nuclear norm, average.

    Of τᵢ = U·diag(σ)·Vᵀ the first r directions stay, as few as have a share η of Σσ; their
    singular values are multiplied by Σσ / Σ_{k≤r} σₖ.

    Args:
        deltas: [n, ...], one parameter's task vectors.
        eta: η, the share of the nuclear norm that stays at the least; 0.4 in the paper.

    Returns:
        [...], to be added to the base.
    """
    return merged_matrices(deltas, lambda matrices: _merge(matrices, eta))


def _merge(deltas: Tensor, eta: float) -> Tensor:
    import torch

    total = torch.zeros_like(deltas[0], dtype=torch.float64)
    for delta in deltas:
        found = singular(delta.double())
        if not len(found.values):
            continue
        norms = found.values.cumsum(dim=0)
        kept = found.largest(int((norms < eta * norms[-1]).sum()) + 1)
        total += kept._replace(values=kept.values * norms[-1] / kept.values.sum()).product()
    return total / len(deltas)
