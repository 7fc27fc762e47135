"""Whether updates push the same elements, and in the same direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sign_agreement(first: Tensor, second: Tensor) -> float:
    """The share of elements with equal signs among those that neither update leaves at zero.

    Complement of the sign conflicts of TIES-merging (Yadav et al. 2023, arXiv:2306.01708) for two
    models. Updates of random signs agree in half of the elements.

    Args:
        first: any shape.
        second: the same shape.

    Returns:
        from 0 to 1; NaN where no element is changed by both.
    """
    return sign_share(*sign_counts(first, second))


def sign_counts(first: Tensor, second: Tensor) -> tuple[int, int]:
    """Elements with equal signs, and elements that both change; those of several blocks add up."""
    _check(first, second)
    product = first.sign() * second.sign()
    return int((product > 0).sum()), int((product != 0).sum())


def sign_share(equal: int, both: int) -> float:
    """`sign_agreement` from the counts of all blocks."""
    return equal / both if both else math.nan


def top_overlap(first: Tensor, second: Tensor, share: float = 0.2) -> float:
    """Jaccard index of the elements of largest magnitude, |T₁ ∩ T₂| / |T₁ ∪ T₂|.

    T holds the share of all elements with the largest magnitudes, at least one; elements that are
    as large as the smallest of them belong to it too, zeros never do. Of random places, the same
    share of elements gives share / (2 − share).

    Args:
        first: any shape.
        second: the same shape.
        share: in (0, 1]; 0.2 is the density that TIES-merging recommends.

    Returns:
        from 0 to 1; NaN where an update is zero.
    """
    _check(first, second)
    top1, top2 = (update.abs() >= top_threshold(update, share) for update in (first, second))
    either = int((top1 | top2).sum())
    if not (first.any() and second.any()):
        return math.nan
    return int((top1 & top2).sum()) / either


def top_threshold(update: Tensor, share: float) -> float:
    """The least magnitude among the share of largest ones; infinite for an update of zeros."""
    if not 0 < share <= 1:
        raise ValueError(f"expected a share in (0, 1], got {share}")
    if not update.any():
        return math.inf
    magnitudes = update.abs().flatten()
    count = max(math.ceil(share * len(magnitudes) - 1e-9), 1)
    least = torch.kthvalue(magnitudes, len(magnitudes) - count + 1).values
    smallest = magnitudes[magnitudes > 0].amin()
    return float(torch.maximum(least, smallest))


def _check(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"the updates have different shapes: {list(first.shape)} and {list(second.shape)}"
        )
