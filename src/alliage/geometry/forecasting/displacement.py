"""Where a planned merge moves a model: its displacement E = M − ΔW, measured against the update.

M is the merged update of one weight, ΔW what the model itself changed there; both as factors B·A,
and no product of that shape is ever formed. A displacement is not equally harmful in all
directions. ΔW is a sum of products of gradients and inputs, so its rows tell which inputs the task
has and its columns which outputs it needs: what E reads of those inputs, ‖EΔWᵀ‖ (Cheng et al. 2025,
arXiv:2503.08099, minimise it), and what it writes to those outputs, ‖ΔWᵀE‖, disturb the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from alliage.geometry.surveying.pairs import LowRankUpdate

Planned = Literal["average", "factor_average"]


def merged_update(updates: Sequence[LowRankUpdate], method: Planned = "average") -> LowRankUpdate:
    """The update that a merge makes of several, as factors.

    Args:
        updates: n of one weight, B [d_out, r_i] and A [r_i, d_in].
        method: "average", Σ ΔW_i / n, with factors of rank Σ r_i; or "factor_average", the product
            of the averaged factors (Fosse 2024, hal-04622988), for updates of one rank; the scale
            is the first one's.

    Raises:
        ValueError: factors of several ranks are to be averaged.
    """
    n = len(updates)
    if method == "average":
        B = torch.cat([update.B.double() * (update.scale / n) for update in updates], dim=1)
        return LowRankUpdate(B, torch.cat([update.A.double() for update in updates]), 1.0)
    if len({update.B.shape[1] for update in updates}) > 1:
        raise ValueError("factors of several ranks have no average")
    B = torch.stack([update.B.double() for update in updates]).mean(0)
    A = torch.stack([update.A.double() for update in updates]).mean(0)
    return LowRankUpdate(B, A, updates[0].scale)


def displacement(merged: LowRankUpdate, own: LowRankUpdate) -> LowRankUpdate:
    """E = M − ΔW as factors, [B_M, −B]·[A_M; A]."""
    B = torch.cat([merged.B.double() * merged.scale, own.B.double() * -own.scale], dim=1)
    return LowRankUpdate(B, torch.cat([merged.A.double(), own.A.double()]), 1.0)


def squared_norm(update: LowRankUpdate) -> float:
    """‖ΔW‖²_F, from two small triangles: nothing is lost where terms cancel."""
    return float((_triangle(update.B) @ _triangle(update.A.mT).mT).square().sum()) * (
        update.scale**2
    )


def inner_product(first: LowRankUpdate, second: LowRankUpdate) -> float:
    """⟨ΔW₁, ΔW₂⟩ = s₁s₂ Σ (B₁ᵀB₂) ∘ (A₁A₂ᵀ)."""
    left = first.B.double().mT @ second.B.double()
    right = first.A.double() @ second.A.double().mT
    return float((left * right).sum()) * first.scale * second.scale


def output_overlap(own: LowRankUpdate, other: LowRankUpdate) -> float:
    """‖ΔWᵀE‖²_F, how strongly E writes where ΔW writes; in weights to the fourth power.

    Zero where their images are orthogonal.

    Args:
        own: ΔW.
        other: E of the same weight.
    """
    core = own.B.double().mT @ other.B.double()
    return _small(_triangle(own.A.mT), core, _triangle(other.A.mT), own, other)


def input_overlap(own: LowRankUpdate, other: LowRankUpdate) -> float:
    """‖EΔWᵀ‖²_F, how strongly E reads what ΔW reads; as `output_overlap`, from the other side."""
    core = own.A.double() @ other.A.double().mT
    return _small(_triangle(own.B), core, _triangle(other.B), own, other)


def _small(
    left: Tensor, core: Tensor, right: Tensor, own: LowRankUpdate, other: LowRankUpdate
) -> float:
    """‖s₁s₂·R₁·core·R₂ᵀ‖², for Q₁, Q₂ with orthonormal columns change no norm."""
    return float((left @ core @ right.mT).square().sum()) * (own.scale * other.scale) ** 2


def _triangle(columns: Tensor) -> Tensor:
    """R of columns = Q·R; their own number squared, or less where there are fewer rows."""
    triangle: Tensor = torch.linalg.qr(columns.double(), "r")[1]
    return triangle
