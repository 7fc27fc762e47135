"""Sums of low-rank products BᵢAᵢ in float64, by their factors: never the dense matrix.

Singular values that rounding alone can make, S ≤ max(m, n)·eps·‖B‖‖A‖, count as zero: adapters that
repeat or cancel one another leave no directions of errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def joined(B: Sequence[Tensor], A: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[B₁ … Bₙ], [d_out, Σr], and [A₁; …; Aₙ], [Σr, d_in], whose product is ΣBᵢAᵢ; float64."""
    import torch

    return torch.cat([b.double() for b in B], dim=1), torch.cat([a.double() for a in A])


def thin_svd(B: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U [d_out, k], S [k] > 0, falling, and Vᵀ [k, d_in] of BA, through QR of both factors."""
    import torch

    left, upper = torch.linalg.qr(B)
    right, lower = torch.linalg.qr(A.T)
    U, S, Vt = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    largest = float(torch.linalg.matrix_norm(upper)) * float(torch.linalg.matrix_norm(lower))
    count = _significant(S, largest, max(len(B), A.shape[1]))
    return left @ U[:, :count], S[:count], Vt[:count] @ right.T


def left_basis(B: Tensor) -> Tensor:
    """The left singular vectors [d, k] of a tall matrix, without those of zero."""
    import torch

    left, upper = torch.linalg.qr(B)
    U, S, _ = torch.linalg.svd(upper, full_matrices=False)
    largest = float(torch.linalg.matrix_norm(upper))
    basis: Tensor = left @ U[:, : _significant(S, largest, len(B))]
    return basis


def common_left_basis(B: Sequence[Tensor], A: Sequence[Tensor]) -> Tensor:
    """The left singular vectors [d_out, k] of [B₁A₁ | … | BₙAₙ], side by side; float64.

    With Aᵢᵀ = QᵢRᵢ they are those of [B₁R₁ᵀ | … | BₙRₙᵀ].
    """
    import torch

    rows = [torch.linalg.qr(a.double().T).R for a in A]
    return left_basis(
        torch.cat([b.double() @ upper.T for b, upper in zip(B, rows, strict=True)], dim=1)
    )


def split_evenly(U: Tensor, S: Tensor, Vt: Tensor) -> tuple[Tensor, Tensor]:
    """Factors U√S and √SVᵀ, float32, which are of one size."""
    roots = S.sqrt()
    return (U * roots).float(), (roots[:, None] * Vt).float()


def _significant(values: Tensor, largest: float, size: int) -> int:
    import torch

    return int((values > largest * size * torch.finfo(values.dtype).eps).sum())
