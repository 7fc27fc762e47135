"""Distances between subspaces as functions of their principal angles.

Each takes the angles along the last axis, in radians, in any order, and gives a float for one set
[k] or float64 [...] for a batch [..., k]. NaN among angles stands for an angle that is not there
(`principal_angles` fills short rows with it). Without any angle the distance is NaN: nothing is
said about a space of dimension zero. Between spaces of unequal dimension these compare the smaller
one with the nearest part of the larger.

Definitions: Hamm & Lee 2008 (doi:10.1145/1390156.1390204), Ye & Lim 2016 (arXiv:1407.0900).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

AngleDistance = Callable[[Tensor], Any]


def _of_angles(formula: Callable[[Tensor], Tensor]) -> AngleDistance:
    @functools.wraps(formula)
    def distance(angles: Tensor) -> Any:
        angles = torch.as_tensor(angles, dtype=torch.float64)
        absent = angles.isnan()
        # An angle of zero adds nothing to any of the sums, products and maxima below.
        value = formula(angles.masked_fill(absent, 0.0))
        value = value.masked_fill(absent.all(-1), math.nan)
        return value.item() if value.ndim == 0 else value

    return distance


def _largest(angles: Tensor) -> Tensor:
    return angles.amax(-1) if angles.shape[-1] else angles.sum(-1)


def _log_cos_squared(angles: Tensor) -> Tensor:
    """Σ ln cos²θ; from sines, for the logarithm of a cosine near 1 has no digits."""
    return torch.log1p(-angles.sin().square().clamp(max=1.0)).sum(-1)


@_of_angles
def geodesic(angles: Tensor) -> Tensor:
    """√Σθ², the length of the shortest path on the Grassmannian; up to √k·π/2."""
    return angles.square().sum(-1).sqrt()


@_of_angles
def angle_sum(angles: Tensor) -> Tensor:
    """Σθ; up to k·π/2."""
    return angles.sum(-1)


@_of_angles
def chordal(angles: Tensor) -> Tensor:
    """√Σsin²θ; up to √k."""
    return angles.sin().square().sum(-1).sqrt()


@_of_angles
def projection_frobenius(angles: Tensor) -> Tensor:
    """‖P₁ − P₂‖_F = √2·√Σsin²θ of the two orthogonal projectors; up to √(2k)."""
    return (2 * angles.sin().square().sum(-1)).sqrt()


@_of_angles
def projection_two(angles: Tensor) -> Tensor:
    """‖P₁ − P₂‖₂ = sin θ₁ of the largest angle, for spaces of one dimension; up to 1."""
    return _largest(angles).sin()


@_of_angles
def procrustes(angles: Tensor) -> Tensor:
    """2√Σsin²(θ/2), the Frobenius distance of the best aligned orthonormal bases; up to √(2k)."""
    return 2 * (angles / 2).sin().square().sum(-1).sqrt()


@_of_angles
def fubini_study(angles: Tensor) -> Tensor:
    """The angle arccos Πcosθ; up to π/2."""
    log = _log_cos_squared(angles)
    return torch.atan2((-torch.expm1(log)).sqrt(), (log / 2).exp())


@_of_angles
def martin(angles: Tensor) -> Tensor:
    """√(−2Σ ln cosθ); without bound, infinite for spaces with orthogonal directions."""
    return (-_log_cos_squared(angles)).sqrt()


@_of_angles
def asimov(angles: Tensor) -> Tensor:
    """The largest angle; up to π/2."""
    return _largest(angles)


@_of_angles
def binet_cauchy(angles: Tensor) -> Tensor:
    """√(1 − Πcos²θ); up to 1."""
    return (-torch.expm1(_log_cos_squared(angles))).sqrt()


def ye_lim(angles: Tensor, first: int | Tensor, second: int | Tensor) -> Any:
    """√(Σθ² + |k₁ − k₂|·π²/4): `geodesic`, and π/2 for each direction that only one space has.

    A metric among spaces of all dimensions (Ye & Lim 2016, arXiv:1407.0900, section 5), where the
    others say nothing about directions that the larger space has more.

    Args:
        angles: [..., min(k₁, k₂)], radians, NaN where there is none.
        first: k₁, dimensions of the first space, or integers [...] of a batch.
        second: k₂.

    Returns:
        radians, from 0 to √max(k₁, k₂)·π/2; NaN where a space has dimension zero.
    """
    surplus = (torch.as_tensor(first) - torch.as_tensor(second)).abs().double()
    value = torch.as_tensor(geodesic(angles), dtype=torch.float64)
    value = (value.square() + surplus * (math.pi**2 / 4)).sqrt()
    return value.item() if value.ndim == 0 else value


ANGLE_DISTANCES: Mapping[str, AngleDistance] = {
    "geodesic": geodesic,
    "angle_sum": angle_sum,
    "chordal": chordal,
    "projection_frobenius": projection_frobenius,
    "projection_two": projection_two,
    "procrustes": procrustes,
    "fubini_study": fubini_study,
    "martin": martin,
    "asimov": asimov,
    "binet_cauchy": binet_cauchy,
}
