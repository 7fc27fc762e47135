"""Model-exclusive task arithmetic (Zhou et al. 2024), MetaGPT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alliage.merging.products import SquaredNorms, Table, whole
from alliage.merging.registry import method, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "metagpt",
    unit="block",
    space="delta",
    paper="arXiv:2406.11385",
    first_pass=SquaredNorms,
    identical=True,
)
def metagpt(deltas: Tensor, *, squares: Table | None = None) -> Tensor:
    """Add the task vectors, each by its share of all squared norms: Σ λᵢτᵢ.

    λᵢ = ‖τᵢ‖² / Σⱼ ‖τⱼ‖² over the whole model: where task vectors are orthogonal and the loss is
    that of a linearised model, these lessen a bound on the mean loss the most. They sum to one.

    Args:
        deltas: [n, ...], the task vectors, whole unless `squares` is given.
        squares: [n, n], on the diagonal ‖τᵢ‖² of the whole vectors, for a block of them.

    Returns:
        [...], to be added to the base.
    """
    import torch

    squares = whole(SquaredNorms, deltas) if squares is None else squares
    norms = torch.tensor(squares, dtype=torch.float64).diagonal()
    total = norms.sum()
    shares = norms / total if total > 0 else norms
    return weighted_sum(deltas, shares)
