"""Model Stock (Jang et al. 2024): how far to go from the base to the average."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from alliage.merging.registry import method, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

_SINGULAR = 1e-6  # |1 + (N−1)c| below which the ratio says nothing


@method(
    "model_stock",
    unit="tensor",
    space="delta",
    paper="arXiv:2403.19522",
    departures="Where the mean cosine is negative, the formula's t is below zero, without bound as "
    "the task vectors cancel; there it is 0 and the base stays. With bounded: false it is the "
    "formula's, and 0 only where that has no value. Cosines are those of the vectors as they are; "
    "mergekit and sd-mecha take products of norms below 1e-6 as 1e-6. One model is its own "
    "average: c = 1. A filter is all that makes one output; mergekit's is a row as it is stored, "
    "and so one of GPT-2's inputs.",
    oriented=True,
    identical=True,
)
def model_stock(deltas: Tensor, *, filter_wise: bool = False, bounded: bool = True) -> Tensor:
    """Average the task vectors and take t of the way: t = Nc / (1 + (N−1)c), c their mean cosine.

    Fine-tuned weights lie on a thin shell around a centre; of all points between the base and
    their average this one is the nearest to it.

    Args:
        deltas: [n, ...], one parameter's task vectors.
        filter_wise: whether each row, all that makes one output, has its own cosine; otherwise the
            whole parameter has one. Vectors are one row.
        bounded: whether t stays in [0, 1]: a negative c counts as zero.

    Returns:
        [...], to be added to the base.
    """
    count = len(deltas)
    rows = deltas.flatten(2) if filter_wise and deltas.ndim > 2 else deltas.reshape(count, 1, -1)
    cosine = _mean_cosine(rows)
    cosine = cosine.clamp(min=0) if bounded else cosine
    bottom = 1 + (count - 1) * cosine
    singular = bottom.abs() < _SINGULAR
    t = (count * cosine / bottom.where(~singular, 1.0)).where(~singular, 0.0)
    average = weighted_sum(rows, 1.0) / count
    return (average * t.to(deltas.dtype)).reshape(deltas.shape[1:])


def _mean_cosine(rows: Tensor) -> Tensor:
    """Of all pairs of [n, rows, m], for each row: float64 [rows, 1]; zero beside zero vectors."""
    import torch

    count = len(rows)
    norms = [(row.double().square()).sum(dim=-1, keepdim=True).sqrt() for row in rows]
    if count == 1:
        return torch.ones_like(norms[0])
    total = torch.zeros_like(norms[0])
    for one, other in combinations(range(count), 2):
        product = (rows[one].double() * rows[other]).sum(dim=-1, keepdim=True)
        both = norms[one] * norms[other]
        total += (product / both).where(both > 0, 0.0).clamp(-1, 1)
    return total / (count * (count - 1) / 2)
