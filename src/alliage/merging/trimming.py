"""Which entries stay where the largest magnitudes of a vector are kept, for a block or a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alliage.merging.registry import one_each, per_model
from alliage.merging.signature import PerModelNumber
from alliage.order_statistics import Kept, magnitude_thresholds, trim_rank

if TYPE_CHECKING:
    from torch import Tensor


def keep_largest(
    vectors: Tensor, thresholds: Sequence[float] | Tensor, quota: Sequence[int] | None
) -> Tensor:
    """The vectors [n, ...] with zeros in place of what does not stay; themselves where all does."""
    import torch

    if not torch.as_tensor(thresholds).any():
        return vectors
    return vectors.where(stays(vectors, thresholds, quota), 0.0)


def stays(
    vectors: Tensor, thresholds: Sequence[float] | Tensor, quota: Sequence[int] | None
) -> Tensor:
    """Whether entries are at least their vector's threshold.

    Args:
        vectors: [n, ...].
        thresholds: [n], magnitudes.
        quota: [n], how many entries equal to its threshold a vector keeps, its first ones; −1: all.

    Returns:
        [n, ...], true or false.
    """
    import torch

    kept = torch.empty(vectors.shape, dtype=torch.bool, device=vectors.device)
    limits = torch.as_tensor(thresholds).tolist()
    lefts = [-1] * len(limits) if quota is None else quota
    for row, values, limit, left in zip(kept, vectors, limits, lefts, strict=True):
        magnitudes = values.abs()
        torch.ge(magnitudes, limit, out=row)
        if left >= 0:
            equal = (magnitudes == limit).flatten()
            row &= ~(equal & (equal.cumsum(0) > left)).reshape(row.shape)
    return kept


def whole_thresholds(vectors: Tensor, ranks: list[int]) -> tuple[Tensor, list[int]]:
    """Thresholds and quotas by which whole vectors keep exactly their entries of some rank or more.

    Args:
        vectors: [n, ...], float32.
        ranks: [n], as `thresholds.trim_rank` counts them.

    Returns:
        [n] and [n], for `stays`.
    """
    flat = vectors.flatten(1)
    numel = flat.shape[1]
    limits = magnitude_thresholds(flat, ranks)
    larger = (flat.abs() > per_model(limits, flat)).sum(dim=1).tolist()
    return limits, [
        numel - rank + 1 - above if 0 < rank <= numel else -1
        for rank, above in zip(ranks, larger, strict=True)
    ]


def trim_thresholds(
    vectors: Tensor, density: PerModelNumber, kept: Kept
) -> tuple[Tensor, list[int] | None]:
    """Thresholds and quotas by which whole vectors keep some share of their entries.

    Args:
        vectors: [n, ...], float32.
        density: the shares.
        kept: as for ties.

    Returns:
        [n] and [n], for `stays`.
    """
    numel = vectors[0].numel()
    shares = one_each(density, len(vectors)).tolist()
    ranks = [trim_rank(numel, share, kept) for share in shares]
    limits, quota = whole_thresholds(vectors, ranks)
    return limits, quota if kept.startswith("count") else None
