"""What principal angles are by chance: subspaces drawn at random."""

from __future__ import annotations

import functools
import threading

import numpy as np
import torch
from torch import Tensor

_DRAWS = 512  # the mean geodesic for d = 768, r = 8 comes out with an error of 0.001 of its 4.20
_LARGE = 64  # from here on as many fewer draws as there are more angles: each tells more
_AT_ONCE = 1 << 23  # numbers of all draws in memory at a time
_LOCK = threading.Lock()  # workers that ask for the same draws wait for them


def random_angles(d: int, r1: int, r2: int) -> Tensor:
    """Principal angles of independent uniform subspaces of dimension r₁ and r₂ in d dimensions.

    The larger of the two may be held fixed, as the span of the first axes; the smaller one is
    spanned by a Gaussian matrix with r columns, whose rows beyond the larger space's count only by
    their Gram matrix. That is a Wishart matrix, drawn by its Cholesky factor (Bartlett 1933): the
    cost does not depend on d. Cosines are the singular values of the first rows of an orthonormal
    basis, sines those of the rest.
    In the mean, Σcos²θ = r₁r₂/d.

    Args:
        d: dimensions of the space, at least r₁ and r₂.
        r1: dimensions of the first subspace, 1 or more.
        r2: dimensions of the second.

    Returns:
        float64 [512, min(r₁, r₂)], each row descending; the same numbers every time. Beyond 64
        angles there are fewer rows, 512·64 / min(r₁, r₂).
    """
    if not (1 <= r1 <= d and 1 <= r2 <= d):
        raise ValueError(f"expected 1 ≤ r ≤ d, got r = {r1} and {r2} in d = {d}")
    with _LOCK:
        return _angles(d, r1, r2)


@functools.lru_cache(maxsize=256)
def _angles(d: int, r1: int, r2: int) -> Tensor:
    large, small = max(r1, r2), min(r1, r2)
    draws = _DRAWS if small <= _LARGE else _DRAWS * _LARGE // small
    if large == d:  # one of the two is everything
        return torch.zeros(draws, small, dtype=torch.float64)
    generator = np.random.default_rng([d, r1, r2])
    step = max(_AT_ONCE // ((large + small) * small), 1)
    counts = [min(step, draws - start) for start in range(0, draws, step)]
    return torch.cat([_drawn(generator, count, d, large, small) for count in counts])


def _drawn(generator: np.random.Generator, count: int, d: int, large: int, small: int) -> Tensor:
    upper = generator.standard_normal((count, large, small))
    freedom = d - large
    if freedom >= small:
        lower = np.triu(generator.standard_normal((count, small, small)), 1)
        places = np.arange(small)
        lower[:, places, places] = np.sqrt(generator.chisquare(freedom - places, (count, small)))
    else:
        lower = generator.standard_normal((count, freedom, small))
    basis = torch.linalg.qr(torch.from_numpy(np.concatenate([upper, lower], axis=1)))[0]
    sines = torch.linalg.svdvals(basis[:, large:])
    sines = torch.nn.functional.pad(sines, (0, small - sines.shape[-1]))
    return torch.atan2(sines, torch.linalg.svdvals(basis[:, :large]).flip(-1))
