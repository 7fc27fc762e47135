"""What singular values tell about how an update uses its directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spectrum_overlap(first: Tensor, second: Tensor) -> float:
    """REC = Σ min(pᵢ, qᵢ) of two normalised spectra, 1 − ½‖p − q‖₁.

    Called the Bayes error rate between spectra by its source; it is twice that error. A spectral
    projection may hold negative values: absolute values are taken.

    Args:
        first: [k₁], the order matters: place i of both belongs to the same direction.
        second: [k₂]; the shorter one is continued by zeros.

    Returns:
        from 0, nothing shared, to 1, the same shares; NaN where a spectrum is zero.
    """
    p, q = _shares(first), _shares(second)
    shared = min(len(p), len(q))
    return float(torch.minimum(p[:shared], q[:shared]).sum())


def spectral_entropy(S: Tensor) -> float:
    """H(p) / ln r with pᵢ = |Sᵢ| / Σ|S|, Shannon's entropy of a spectrum of r values.

    Returns:
        from 0, one direction has all, to 1, all have the same; NaN for a spectrum of zeros or of
        a single value.
    """
    r = S.numel()
    return _entropy(S) / math.log(r) if r > 1 else math.nan


def effective_rank(S: Tensor) -> float:
    """e^H with H the entropy of Sᵢ / ΣS (Roy & Vetterli 2007, EUSIPCO).

    Returns:
        from 1 to the number of values; NaN for a spectrum of zeros.
    """
    return math.exp(_entropy(S))


def _entropy(S: Tensor) -> float:
    p = _shares(S)
    return float(-torch.special.xlogy(p, p).sum())


def _shares(S: Tensor) -> Tensor:
    """|S| / Σ|S|, all NaN for zeros."""
    if S.ndim != 1 or not S.numel():
        raise ValueError(f"expected a spectrum [r], got the shape {list(S.shape)}")
    magnitudes = S.double().abs()
    return magnitudes / magnitudes.sum()
