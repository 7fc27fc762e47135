"""How updates meet in their sum: what a merge keeps of each, and where singular directions collide.

Updates come as their singular values and vectors, exact for low-rank updates by `low_rank_svd`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alliage.geometry.low_rank import low_rank_svd


class Decomposition(NamedTuple):
    """ΔW = U·diag(S)·Vᵀ.

    Attributes:
        U: [d_out, k], orthonormal columns, float64.
        S: [k], descending.
        V: [d_in, k], orthonormal columns.
    """

    U: Tensor
    S: Tensor
    V: Tensor


def sum_of(updates: Sequence[Decomposition]) -> Decomposition:
    """The decomposition of ΔW₁ + ΔW₂ + …, from theirs; the dense sum is never formed.

    Args:
        updates: of one shape; ranks may differ.
    """
    left = torch.cat([update.U * update.S for update in updates], dim=1)
    right = torch.cat([update.V for update in updates], dim=1)
    return Decomposition(*low_rank_svd(left, right.mT))


def subspace_alignment(
    update: Decomposition, merged: Decomposition, epsilon: float = 0.05
) -> float:
    """SAR = ‖U_k U_kᵀ ΔW‖_F / ‖ΔW‖_F, how much of an update the main directions of a merge hold.

    U_k are the leading left singular vectors of the merged update M, as few as leave at most a
    share epsilon of it: k = min {k : ‖M − U_k U_kᵀ M‖_F ≤ ε‖M‖_F} (Marczak et al. 2025,
    arXiv:2502.04959). It does not depend on a factor of either. The authors' published code keeps
    95 % of ‖M‖_F instead, ε = 0.312, cuts one direction too few, and puts the directions found for
    the first task in place of the merge's for all later ones; none of that is done here.

    Args:
        update: ΔW.
        merged: M, usually `sum_of` the updates.
        epsilon: what may be left of M, in [0, 1).

    Returns:
        from 0 to 1; NaN where one of the two is zero.
    """
    norm = float(torch.linalg.norm(update.S.double()))
    k = main_directions(merged.S, epsilon)
    if norm == 0 or k == 0:
        return math.nan
    image = merged.U[:, :k].double().mT @ (update.U * update.S).double()
    return min(float(torch.linalg.norm(image)) / norm, 1.0)


def main_directions(S: Tensor, epsilon: float = 0.05) -> int:
    """The k of `subspace_alignment`: the fewest that leave at most a share epsilon of ‖S‖.

    Args:
        S: all singular values, descending; of zeros there are none.
        epsilon: in [0, 1).
    """
    if not 0 <= epsilon < 1:
        raise ValueError(f"expected epsilon in [0, 1), got {epsilon}")
    energy = S.double().square()
    # What is left behind the first k directions; sums from the small end lose nothing.
    left = energy.flip(0).cumsum(0).flip(0)
    return int((left > epsilon**2 * energy.sum()).sum())


def singular_task_interference(updates: Sequence[Decomposition]) -> float:
    """STI = ‖(UᵀU − I) Σ (VᵀV − I)‖₁, with all singular vectors side by side (arXiv:2412.00081).

    U = [U₁ … U_T], V = [V₁ … V_T], Σ the diagonal of all singular values, and the sum of magnitudes
    of all entries. Zero where the directions of all updates are orthogonal on one of the two sides.
    It grows with the size of the updates and with the number of directions; so does what an update
    has with itself, 2ΣS, as with a copy.

    Args:
        updates: two or more of one shape; ranks may differ.

    Returns:
        0 or more, in units of the singular values; NaN where an update is zero.
    """
    if any(len(update.S) == 0 for update in updates):
        return math.nan
    U, S, V = (torch.cat(parts, dim=-1).double() for parts in zip(*updates, strict=True))
    ranks = torch.tensor([len(update.S) for update in updates])
    owner = torch.repeat_interleave(torch.arange(len(updates)), ranks)
    # Each update's own block of UᵀU − I is zero by definition: no rounding errors are summed.
    foreign = owner[:, None] != owner
    left, right = ((columns.mT @ columns) * foreign for columns in (U, V))
    return float((left * S @ right).abs().sum())
