"""Arcee Fusion: take over the changes that matter most (Arcee AI 2025, in mergekit)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alliage.merging.registry import method

if TYPE_CHECKING:
    from torch import Tensor

_AT_ONCE = 2**18  # elements, of which probabilities are held
_LEAST = 1e-8  # added to probabilities, which the divergence divides by
_FENCE = 1.5  # of interquartile ranges above the median


@method(
    "arcee_fusion",
    unit="tensor",
    space="weight",
    paper="https://github.com/arcee-ai/mergekit",
    departures="Quartiles are those of the whole tensor, where mergekit draws a million entries at "
    "random if there are more. Importances are computed in float64.",
    models=2,
    homogeneous=False,
    identical=True,
)
def arcee_fusion(weights: Tensor) -> Tensor:
    """Take from b the entries whose change from a is important, and all others from a.

    An entry's importance is |b − a| · KL(softmax b ‖ softmax a), the divergence that of its row
    along the last axis. From median + 1.5·(Q₃ − Q₁) of all importances on it is taken over, where
    the quartile q of d values is their (1 + ⌊q(d − 1)⌋)-th smallest.

    Args:
        weights: [2, ...], a and b of one whole tensor.

    Returns:
        [...], the chosen weights.
    """
    a, b = weights[0], weights[1]
    if not a.numel():
        return a.clone()
    importance = _importance(a, b).flatten()
    low, middle, high = (
        float(importance.kthvalue(1 + int(share * (len(importance) - 1))).values)
        for share in (0.25, 0.5, 0.75)
    )
    important = importance >= middle + _FENCE * (high - low)
    return b.where(important.reshape(a.shape), a)


def _importance(a: Tensor, b: Tensor) -> Tensor:
    """Of every entry, float64 [rows, columns]."""
    import torch

    columns = a.shape[-1] if a.ndim else 1
    each = max(1, _AT_ONCE // columns)
    found = torch.empty(a.numel() // columns, columns, dtype=torch.float64, device=a.device)
    parts = (torch.split(of, each) for of in (found, *(x.reshape(found.shape) for x in (a, b))))
    for out, first, second in zip(*parts, strict=True):
        one, other = first.double(), second.double()
        q, p = (values.softmax(dim=1) + _LEAST for values in (one, other))
        divergence = (p * (p / q).log()).sum(dim=1, keepdim=True)
        torch.mul((other - one).abs(), divergence, out=out)
    return found
