"""Task arithmetic with calibrated singular values (Li et al. 2026)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alliage.merging.registry import method, weighted_sum
from alliage.merging.signature import In
from alliage.merging.spectral import WORK, merged_matrices, noise, singular, svd_seconds

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "svc",
    unit="tensor",
    space="delta",
    paper="arXiv:2602.05536",
    departures="The paper calibrates any merge, here task arithmetic. Every matrix is calibrated, "
    "embeddings too, and kernels of convolutions as [out, rest]; what is a vector, or has one row "
    "or column, is added up with λ. A task's response that is a rounding error of float32 counts "
    "as none: its coefficient would be the quotient of two rounding errors. Equal singular values "
    "leave their directions open, and with them the coefficients.",
    oriented=True,
    work=WORK,
    seconds=lambda _, *sides, **__: svd_seconds(*sides),
)
def svc(
    deltas: Tensor,
    *,
    scale: Annotated[float, In(0, open_low=True)] = 0.3,
    alpha: Annotated[float, In(0, 1, open_low=True)] = 0.1,
) -> Tensor:
    """Add the task matrices and make smaller what several of them add up in one direction.

    λΣτᵢ = U·diag(σ)·Vᵀ. In direction r the sum answers with aᵣ = uᵣᵀ·λΣτᵢ and task i with
    aᵣⁱ = uᵣᵀτᵢ, of which the sum has sᵣⁱ = ⟨aᵣ, aᵣⁱ⟩ / ‖aᵣⁱ‖². Then σᵣ becomes
    σᵣ·n / Σᵢ max(α, sᵣⁱ).

    Args:
        deltas: [n, ...], one parameter's task vectors.
        scale: λ; 0.3 as in FusionBench. Where all sᵣⁱ are larger than α it cancels out.
        alpha: α, the least that a task counts; 0.1 in FusionBench for task arithmetic. At 1 nothing
            grows.

    Returns:
        [...], to be added to the base.
    """
    return merged_matrices(
        deltas,
        lambda matrices: _merge(matrices, scale, alpha),
        vectors=lambda vectors: weighted_sum(vectors, 1.0) * scale,
    )


def _merge(deltas: Tensor, scale: float, alpha: float) -> Tensor:
    import torch

    merged = singular(scale * deltas.sum(dim=0, dtype=torch.float64))
    counted = torch.zeros_like(merged.values)
    for delta in deltas:
        task = delta.double()
        response = merged.left.mT @ task
        squares = response.square().sum(dim=1)
        shared = (response * merged.right.mT).sum(dim=1) * merged.values
        heard = squares.sqrt() > noise(task.shape, float(task.norm()))
        counted += (shared / squares).where(heard, 0.0).clamp(min=alpha)
    return merged._replace(values=merged.values * len(deltas) / counted).product()
