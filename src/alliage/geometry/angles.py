"""Principal angles between subspaces, accurate at both ends of their range."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """The principal angles between the column spaces of two matrices.

    Cosines are the singular values of U₁ᵀU₂ (Björck & Golub 1973,
    doi:10.1090/S0025-5718-1973-0348991-3), not its eigenvalues. Sines are those of what U₂ has
    outside U₁, U₂ − U₁U₁ᵀU₂, and θ = atan2(sin, cos): arccos alone loses half of the digits of
    small angles.

    Args:
        first: [..., d, r₁], its columns orthonormal or not.
        second: [..., d, r₂].

    Returns:
        float64, [..., k], radians in [0, π/2], descending: as many angles as the smaller of the two
        spaces has dimensions. Directions whose singular value is at most max(d, r)·eps of the
        largest do not count. Where a batch's spaces differ in dimension, short rows end in NaN.

    Raises:
        ValueError: the shapes do not fit, or the input is not finite.
    """
    if first.ndim < 2 or second.ndim < 2 or first.shape[:-1] != second.shape[:-1]:
        raise ValueError(
            f"expected [..., d, r1] and [..., d, r2], got {list(first.shape)} and "
            f"{list(second.shape)}"
        )
    U1, rank1 = column_space(first)
    U2, rank2 = column_space(second)
    full1, full2 = U1.shape[-1], U2.shape[-1]
    if bool((rank1 == full1).all() and (rank2 == full2).all()):
        return angles_between_bases(U1, U2)
    ranks = zip(rank1.flatten().tolist(), rank2.flatten().tolist(), strict=True)
    rows = [
        angles_between_bases(u1[:, :r1], u2[:, :r2])
        for u1, u2, (r1, r2) in zip(
            U1.reshape(-1, *U1.shape[-2:]), U2.reshape(-1, *U2.shape[-2:]), ranks, strict=True
        )
    ]
    longest = max((len(row) for row in rows), default=0)
    angles = torch.full((len(rows), longest), math.nan, dtype=torch.float64)
    for row, found in zip(angles, rows, strict=True):
        row[: len(found)] = found
    return angles.reshape(*first.shape[:-2], longest)


def angles_between_bases(first: Tensor, second: Tensor) -> Tensor:
    """`principal_angles` of float64 matrices [..., d, k₁], [..., d, k₂] known to be orthonormal."""
    if first.shape[-1] < second.shape[-1]:
        first, second = second, first
    product = first.mT @ second
    sines = torch.linalg.svdvals(second - first @ product)
    return torch.atan2(sines, torch.linalg.svdvals(product).flip(-1))


def column_space(columns: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of a matrix's column space, and the dimension of that space.

    Args:
        columns: [..., d, r].

    Returns:
        U, float64, [..., d, min(d, r)], and rank, integers [...]: the first `rank` columns of U
        span the space.

    Raises:
        ValueError: NaN or infinity.
    """
    if not bool(columns.isfinite().all()):
        raise ValueError("expected finite numbers, found NaN or infinity")
    Q, R = torch.linalg.qr(columns.double())
    u, S, _ = torch.linalg.svd(R, full_matrices=False)
    return Q @ u, numerical_rank(S, max(columns.shape[-2:]))


def numerical_rank(S: Tensor, size: int, *, eps: float = torch.finfo(torch.float64).eps) -> Tensor:
    """How many singular values S [..., r], descending, exceed size·eps·S₁."""
    floor = size * eps * S[..., :1]
    return S.gt(floor).sum(-1)
