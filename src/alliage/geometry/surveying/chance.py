"""What metrics are for updates that have nothing to do with each other.

The update keeps its singular values; its directions are drawn anew, uniformly and independently.
Each function gives mean and variance, float64 [2, ..., n, n]; NaN for what is not known.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alliage.geometry.distances import ANGLE_DISTANCES, ye_lim
from alliage.geometry.null import random_angles
from alliage.geometry.surveying.decomposed import shared

if TYPE_CHECKING:
    from alliage.geometry.surveying.decomposed import Cores, Decomposed
    from alliage.geometry.surveying.pairs import Angles, Counts, Sums

_DRAWS = 512
_NODES = 256  # of Gauss-Legendre; 1e-12 of the integral below for any spectrum tried


def of_angles(name: str, angles: Angles) -> Tensor:
    """A distance of angles between random subspaces, drawn; zero on the diagonal."""
    return _of_angles(name, angles.d, angles.ranks)


def of_l2(sums: Sums) -> Tensor:
    """√(‖ΔW_i‖² + ‖ΔW_j‖²), the root of the exact mean square; the variance is to first order."""
    energy = sums.inner.diagonal(dim1=-2, dim2=-1)[..., None]
    both = energy + energy.mT
    different = 1 - torch.eye(sums.inner.shape[-1], dtype=torch.float64)
    variance = (sums.spread / both).masked_fill(both == 0, 0.0)
    return torch.stack([both.sqrt() * different, variance * different])


def of_cosine(sums: Sums) -> Tensor:
    """1 in the mean; the cosine's square has the mean Σ‖ΔW_i‖²‖ΔW_j‖²/N over weights of N elements.

    Exact for updates of any rank whose directions are random on both sides.
    """
    energy = sums.inner.diagonal(dim1=-2, dim2=-1)[..., None]
    variance = sums.spread / (energy * energy.mT)
    different = 1 - torch.eye(sums.inner.shape[-1], dtype=torch.float64)
    return torch.stack([different.expand_as(variance), variance * different])


def of_explained_energy(cores: Cores) -> Tensor:
    """k/(d_out·d_in), exactly; the variance is that of Gaussian directions, for large weights."""
    k, q = cores.ranks.double(), _concentration(cores)
    return torch.stack([(k / cores.size).expand(len(q), -1), k * (2 + 6 * q) / cores.size**2])


def of_core_energy(cores: Cores) -> Tensor:
    """k²/(d_out·d_in), exactly; the variance is that of Gaussian directions, for large weights."""
    k, q = cores.ranks.double(), _concentration(cores)
    return torch.stack(
        [
            (k.square() / cores.size).expand(len(q), -1),
            (2 * k.square() * (1 + q) + 4 * k.pow(3) * q) / cores.size**2,
        ]
    )


def of_overlap(cores: Cores) -> Tensor:
    """The overlap of S_j with |S₂| of i in Gaussian directions, drawn; for large weights.

    S₂ is then Σ_l σ_l g_l h_l for each direction; what i holds beyond its leading directions counts
    as one more normal number.
    """
    k = cores.S.shape[1]
    products, normal = _normal(k)
    rest = (cores.norms.square() - cores.S.square().sum(-1)).clamp(min=0).sqrt()
    projected = products @ cores.S.mT + normal[..., None] * rest  # [draws, k, n]
    projected = projected.movedim(-1, 0)[:, :, None] * (cores.S > 0)  # [n, draws, n, k]
    values = shared(cores.S, projected)
    return torch.stack([values.mean(1), values.var(1)])


def of_interference(decomposed: Decomposed) -> Tensor:
    """The mean in closed form; the variance is not known.

    An entry of C S Dᵀ is Σ S_c x_c y_c with x and y parts of independent random unit vectors in
    d_out and d_in dimensions: E = E‖S∘g‖ / E‖g'‖ · E|y₁| with Gaussian g of k and g' of d_out
    dimensions.
    """
    S, ranks = decomposed.spectra()
    d_out, d_in = decomposed.size
    entry = _mean_length(S) / _mean_norm(d_out) * _mean_coordinate(d_in)
    block = ranks[:, None].double().square() * entry  # [i, j]: k_i² entries with S_j
    mean = block + block.mT
    return torch.stack([mean, torch.full_like(mean, math.nan)])


def of_agreement(counts: Counts) -> Tensor:
    """One half, each element by itself."""
    variance = 0.25 / counts.both
    different = 1 - torch.eye(variance.shape[-1], dtype=torch.float64)
    return torch.stack([(1 - different / 2).expand_as(variance), variance * different])


def of_overlapping_places(counts: Counts) -> Tensor:
    """t_i·t_j/N common places among N to first order; the variance is an upper bound, Poisson's."""
    together = counts.top_both + counts.top_either
    mean = counts.top_chance / (together - counts.top_chance)
    slope = together / (together - counts.top_chance).square()
    return torch.stack([mean, slope.square() * counts.top_chance])


@functools.lru_cache(maxsize=256)
def _of_angles(metric: str, d: int, ranks: tuple[int, ...]) -> Tensor:
    """Mean and variance for all pairs of spaces of some dimensions; not to be changed."""
    moments = [
        [
            (0.0, 0.0) if i == j else _drawn(metric, d, min(r1, r2), max(r1, r2))
            for j, r2 in enumerate(ranks)
        ]
        for i, r1 in enumerate(ranks)
    ]
    return torch.tensor(moments, dtype=torch.float64).movedim(-1, 0)


@functools.lru_cache(maxsize=1024)
def _drawn(metric: str, d: int, r1: int, r2: int) -> tuple[float, float]:
    if r1 == 0:
        return 0.0, 0.0  # beside a distance that is not defined
    angles = random_angles(d, r1, r2)
    draws = ye_lim(angles, r1, r2) if metric == "ye_lim" else ANGLE_DISTANCES[metric](angles)
    return float(draws.mean()), float(draws.var())


@functools.lru_cache(maxsize=64)
def _normal(k: int) -> tuple[Tensor, Tensor]:
    """Products of pairs of normal numbers [draws, k, k], and normal numbers [draws, k]."""
    generator = np.random.default_rng(k)
    first, second = generator.standard_normal((2, _DRAWS, k, k))
    return torch.from_numpy(first * second), torch.from_numpy(
        generator.standard_normal((_DRAWS, k))
    )


def _concentration(cores: Cores) -> Tensor:
    """Σσ⁴/(Σσ²)² of the first update, [n, 1]; of a dense one what its leading directions say."""
    return (cores.S.pow(4).sum(-1) / cores.norms.pow(4))[:, None]


def _mean_length(S: Tensor) -> Tensor:
    """E‖S∘g‖ of S [n, k] and standard normal g.

    E√Q = 1/(2√π) ∫ (1 − E e^(−tQ)) t^(−3/2) dt with E e^(−tQ) = Π(1 + 2tS²)^(−½), at t = tan²φ.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    phi = torch.from_numpy((nodes + 1) * (math.pi / 4))
    norm: Tensor = torch.linalg.vector_norm(S, dim=-1, keepdim=True)
    shares = (S / norm.clamp(min=torch.finfo(S.dtype).tiny)).square()
    decay = torch.log1p(2 * phi.tan().square() * shares[..., None]).sum(-2) / 2
    values = -torch.expm1(-decay) / phi.sin().square()
    integral = (values * torch.from_numpy(weights)).sum(-1) * (math.pi / 4)
    return integral / math.sqrt(math.pi) * norm.squeeze(-1)


def _mean_norm(d: int) -> float:
    """E‖g‖ of standard normal g in d dimensions."""
    return math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))


def _mean_coordinate(d: int) -> float:
    """E|x₁| of a random unit vector in d dimensions."""
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
