"""Which update lies in which: how much of a second one the singular directions of a first hold.

U [d_out, k] and V [d_in, k] are the singular vectors of the first update ΔW₁, orthonormal columns.
Shares of the energy ‖ΔW₂‖² of the second, from 0, nothing of it, to 1, all of it; NaN where ΔW₂ is
zero or ΔW₁ has no directions. Both shares are asymmetric: a large space may hold a small one
without lying in it. For directions drawn at random their means are exactly k / (d_out·d_in) and
k² / (d_out·d_in).

After the poster of Fosse et al. 2025, which projects spectra; the shares are ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alliage.geometry.low_rank import check_factors


def explained_energy(S2: Tensor, norm2: float) -> float:
    """‖S₂‖² / ‖ΔW₂‖², what one value for each direction of ΔW₁ says of ΔW₂.

    Of the best U·S·Vᵀ with S diagonal: at most `core_energy`. Where singular values of ΔW₁ repeat,
    its directions, and so S₂, are not unique.

    Args:
        S2: [k], uᵢᵀ ΔW₂ vᵢ, from `spectral_projection`.
        norm2: ‖ΔW₂‖_F.
    """
    return _share(float(S2.double().square().sum()), norm2, S2.numel())


def core_energy(U: Tensor, V: Tensor, B2: Tensor, A2: Tensor, scale2: float = 1.0) -> float:
    """‖Uᵀ ΔW₂ V‖² / ‖ΔW₂‖² of ΔW₂ = s₂·B₂·A₂, what the spaces of ΔW₁ hold of it.

    It depends on the spaces alone, not on their bases. The product is never formed.

    Args:
        U: [d_out, k].
        V: [d_in, k].
        B2: [d_out, r].
        A2: [r, d_in].
        scale2: s₂.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_factors(B2, A2)
    _, R_B = torch.linalg.qr(B2.double(), "r")
    _, R_A = torch.linalg.qr(A2.double().mT, "r")
    core = (U.double().mT @ B2.double()) @ (A2.double() @ V.double())
    # R_B R_Aᵀ is small and holds the norm even where the columns of B₂A₂ cancel.
    norm2 = abs(scale2) * float(torch.linalg.norm(R_B @ R_A.mT))
    return _share(scale2**2 * float(core.square().sum()), norm2, core.numel())


def dense_projection(U: Tensor, V: Tensor, update: Tensor) -> Tensor:
    """Uᵀ ΔW₂ V of a dense update; its diagonal is S₂.

    Args:
        U: [d_out, k].
        V: [d_in, k].
        update: ΔW₂ [d_out, d_in].

    Returns:
        float64, [k, k].
    """
    return U.double().mT @ update.double() @ V.double()


def dense_core_energy(U: Tensor, V: Tensor, update: Tensor) -> float:
    """`core_energy` of a dense ΔW₂ [d_out, d_in]."""
    core = dense_projection(U, V, update)
    norm2 = float(torch.linalg.norm(update.double()))
    return _share(float(core.square().sum()), norm2, core.numel())


def _share(energy: float, norm2: float, directions: int) -> float:
    # Rounding may leave a hair above one.
    return min(energy / norm2**2, 1.0) if norm2 > 0 and directions > 0 else math.nan
