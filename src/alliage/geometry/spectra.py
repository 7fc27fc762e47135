"""What singular values tell about how an update uses its directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def spectrum_overlap(first: Tensor, second: Tensor, noise: float = 0.0) -> float:
    """REC = Σ min(pᵢ, qᵢ) of two normalised spectra, 1 − ½‖p − q‖₁.

    Called the Bayes error rate between spectra by its source; it is twice that error. A spectral
    projection may hold negative values: absolute values are taken.

    Args:
        first: [k₁], the order matters: place i of both belongs to the same direction.
        second: [k₂]; the shorter one is continued by zeros.
        noise: magnitudes of the second spectrum up to here are zero: of a spectral projection
            max(d_out, d_in)·eps·‖ΔW₂‖, or orthogonal updates would share their rounding errors.

    Returns:
        from 0, nothing shared, to 1, the same shares. A second spectrum of zeros shares nothing; of
        a first one it is not defined, NaN.
    """
    _check(second)
    p, magnitudes = _shares(first), second.double().abs()
    magnitudes = magnitudes.where(magnitudes > noise, 0.0)
    q = _shares(magnitudes) if bool(magnitudes.any()) else magnitudes
    shared = min(len(p), len(q))
    return float(torch.minimum(p[:shared], q[:shared]).sum())


def spectrum_distance(first: Tensor, second: Tensor, p: float = 1.0) -> float:
    """L_p of two spectra, (Σ|S₁ᵢ − S₂ᵢ|^p)^(1/p).

    Args:
        first: [k₁], the order matters: place i of both belongs to the same direction. With S₂ from
            `spectral_projection` values keep their signs: a direction used the other way is far.
        second: [k₂]; the shorter one is continued by zeros.
        p: 1 or more; infinity for the largest difference.

    Returns:
        from 0, in units of the singular values; 0 for two spectra of zeros.
    """
    if not p >= 1:
        raise ValueError(f"expected p of 1 or more, got {p}")
    _check(first)
    _check(second)
    longest = max(len(first), len(second))
    a, b = (pad(S.double(), (0, longest - len(S))) for S in (first, second))
    return float(torch.linalg.vector_norm(a - b, p))


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


def stable_rank(S: Tensor) -> float:
    """ΣS² / max S², the squared Frobenius norm in units of the spectral one.

    Rudelson & Vershynin 2007 (doi:10.1145/1255443.1255449); hardly changed by small singular
    values, unlike the rank.

    Returns:
        from 1 to the number of values; NaN for a spectrum of zeros.
    """
    _check(S)
    squares = S.double().square()
    return float(squares.sum() / squares.amax())


def _entropy(S: Tensor) -> float:
    p = _shares(S)
    return float(-torch.special.xlogy(p, p).sum())


def _shares(S: Tensor) -> Tensor:
    """|S| / Σ|S|, all NaN for zeros."""
    _check(S)
    magnitudes = S.double().abs()
    return magnitudes / magnitudes.sum()


def _check(S: Tensor) -> None:
    if S.ndim != 1 or not S.numel():
        raise ValueError(f"expected a spectrum [r], got the shape {list(S.shape)}")
