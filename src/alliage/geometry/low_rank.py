"""Low-rank updates ΔW = s·B·A, measured by their factors: the product is never formed.

B is [d_out, r], A is [r, d_in]. All arithmetic is in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LowRankDistances(NamedTuple):
    """How two updates differ.

    Attributes:
        frobenius: ‖ΔW₁ − ΔW₂‖_F, the L2 distance of the weights.
        spectral: ‖ΔW₁ − ΔW₂‖₂, the largest singular value of the difference.
        cosine: ⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖·‖ΔW₂‖), in [−1, 1], the cosine itself and not 1 − cosine; NaN
            where an update is zero.
    """

    frobenius: float
    spectral: float
    cosine: float


def low_rank_svd(B: Tensor, A: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """The thin singular value decomposition of s·B·A.

    Through B = Q_B R_B, Aᵀ = Q_A R_A and the small s·R_B R_Aᵀ. Its U spans Im(ΔW), which is Im(B)
    only where A has full row rank.

    Args:
        B: [d_out, r].
        A: [r, d_in].
        scale: s.

    Returns:
        U [d_out, k], S [k] descending, V [d_in, k], float64, ΔW = U·diag(S)·Vᵀ. k ≤ r counts the
        singular values above max(d_out, d_in)·eps·|s|·Σ‖bᵢ‖‖aᵢ‖, over the columns of B and rows of
        A: below it they are rounding errors of terms that cancel.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_factors(B, A)
    Q_B, R_B = torch.linalg.qr(B.double())
    Q_A, R_A = torch.linalg.qr(A.double().mT)
    u, S, vT = torch.linalg.svd(scale * R_B @ R_A.mT, full_matrices=False)
    terms = abs(scale) * (R_B.norm(dim=0) * R_A.norm(dim=0)).sum()
    noise = max(B.shape[0], A.shape[1]) * torch.finfo(S.dtype).eps * terms
    kept = int(S.gt(noise).sum())
    return Q_B @ u[:, :kept], S[:kept], Q_A @ vT.mT[:, :kept]


def low_rank_distances(
    B1: Tensor, A1: Tensor, B2: Tensor, A2: Tensor, scale1: float = 1.0, scale2: float = 1.0
) -> LowRankDistances:
    """Frobenius, spectral and cosine of two updates.

    The difference is [s₁B₁, −s₂B₂]·[A₁; A₂], reduced to its small core by two QR decompositions.
    Expanding ‖ΔW₁ − ΔW₂‖² instead would lose every digit of updates that nearly agree.

    Args:
        B1: [d_out, r₁].
        A1: [r₁, d_in].
        B2: [d_out, r₂].
        A2: [r₂, d_in].
        scale1: s₁.
        scale2: s₂.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_factors(B1, A1)
    check_factors(B2, A2)
    if (B1.shape[0], A1.shape[1]) != (B2.shape[0], A2.shape[1]):
        raise ValueError(
            f"the updates have different shapes: {[B1.shape[0], A1.shape[1]]} and "
            f"{[B2.shape[0], A2.shape[1]]}"
        )
    r1 = B1.shape[1]
    _, R_B = torch.linalg.qr(torch.cat([scale1 * B1.double(), scale2 * B2.double()], dim=1), "r")
    _, R_A = torch.linalg.qr(torch.cat([A1.double(), A2.double()]).mT, "r")
    first, second = R_B[:, :r1] @ R_A[:, :r1].mT, R_B[:, r1:] @ R_A[:, r1:].mT
    S = torch.linalg.svdvals(first - second)
    norms = torch.linalg.norm(first) * torch.linalg.norm(second)
    return LowRankDistances(
        frobenius=float(torch.linalg.vector_norm(S)),
        spectral=float(S.amax()),
        cosine=float((first * second).sum() / norms),
    )


def spectral_projection(
    U: Tensor, V: Tensor, B2: Tensor, A2: Tensor, scale2: float = 1.0
) -> Tensor:
    """How much a second update uses each singular direction of a first one.

    The diagonal S₂ that minimises ‖U·S·Vᵀ − ΔW₂‖_F is exactly S₂ᵢ = uᵢᵀ ΔW₂ vᵢ. An entry may be
    negative. Where singular values of the first repeat, its directions, and so S₂, are not unique.

    Args:
        U: [d_out, k], orthonormal columns.
        V: [d_in, k], orthonormal columns.
        B2: [d_out, r].
        A2: [r, d_in].
        scale2: s₂.

    Returns:
        S₂, float64, [k].
    """
    check_factors(B2, A2)
    return scale2 * ((U.double().mT @ B2.double()) * (A2.double() @ V.double()).mT).sum(1)


def check_factors(B: Tensor, A: Tensor) -> None:
    """Raises ValueError where B·A is not defined."""
    if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0]:
        raise ValueError(
            f"expected B [d_out, r] and A [r, d_in], got {list(B.shape)} and {list(A.shape)}"
        )
