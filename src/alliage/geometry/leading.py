"""The leading singular directions of a dense update, exact where that is not too dear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alliage.geometry.alignment import main_directions
from alliage.geometry.angles import numerical_rank
from alliage.geometry.truncation import (
    fewest_directions,
    squared_norm,
    truncate_to_energy,
    truncate_to_rank,
)

# Up to this smaller side all directions are looked at: 1024 by 4096 takes a second on one core.
EXACT_SIDE = 1024
_COLUMNS = 4096  # of a dense matrix in float64 at a time
_STEPS = 64  # of Lanczos


class Leading(NamedTuple):
    """U·diag(S)·Vᵀ, the part of a matrix M [m, n] in its leading singular directions.

    Attributes:
        U: [m, k], float64, orthonormal.
        S: [k], descending.
        V: [n, k], float64, orthonormal.
        energy: the share ‖S‖² / ‖M‖² of M that they hold, in [0, 1]; what is left out is exactly
            the rest. NaN for zero.
        error: ‖M·V − U·diag(S)‖_F / S₁. Within error·S₁ of each Sᵢ lies some singular value of M
            (Weyl), not necessarily the i-th; at 1e-12 and below the directions are exact.
        spectrum: all singular values above rounding, descending; None where the smaller side
            exceeds `EXACT_SIDE`.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    energy: float
    error: float
    spectrum: Tensor | None


def leading_directions(
    matrix: Tensor, rank: int | None = None, energy: float | None = None, *, seed: int = 0
) -> Leading:
    """The `rank` leading directions, or as few as hold a share of the energy.

    From the eigenvectors of the smaller Gram matrix in float64, which resolves what a float32
    update holds; where the smaller side exceeds `EXACT_SIDE` the directions are drawn as
    `truncation` does it. Where S_k and S_{k+1} are close, the space is sensitive to small changes
    of M. A square update of full rank spans everything.

    Args:
        matrix: M [m, n], float32.
        rank: at most this many directions, 1 or more.
        energy: the least share, in (0, 1]; instead of a rank.
        seed: of directions that are drawn.

    Returns:
        k ≤ rank directions; those with S ≤ max(m, n)·eps·S₁, eps that of float32, are left out.
    """
    if rank is None and energy is None:
        raise ValueError("expected a rank or a share of energy, got neither")
    spectrum = None
    if min(matrix.shape) <= EXACT_SIDE:
        U, S, V, spectrum = _exact(matrix, rank, energy)
    elif energy is not None:
        U, S, V = truncate_to_energy(matrix, energy, seed=seed)
    else:
        U, S, V = truncate_to_rank(matrix, rank or 1, seed=seed)
    kept = _resolved(S, matrix)
    U, S, V = U[:, :kept], S[:kept], V[:, :kept]
    if not kept:
        return Leading(U, S, V, torch.nan, 0.0, spectrum)
    share = float(S.square().sum()) / squared_norm(matrix if matrix.is_contiguous() else matrix.mT)
    left, right = _times(matrix, V) - U * S, _times(matrix.mT, U) - V * S
    error = max(float(torch.linalg.norm(left)), float(torch.linalg.norm(right))) / float(S[0])
    return Leading(U, S, V, min(share, 1.0), error, spectrum)


def exact_alignment(merged: Tensor, updates: Sequence[Tensor]) -> list[float]:
    """`alignment.subspace_alignment` of dense updates in a dense merge, of all its directions.

    Args:
        merged: M [m, n], float32, its smaller side at most `EXACT_SIDE`.
        updates: ΔW of the same shape each, whole.

    Returns:
        NaN where one of the two is zero.
    """
    tall = merged.shape[0] > merged.shape[1]
    values, vectors = torch.linalg.eigh(_gram(merged.mT if tall else merged))
    spectrum = values.flip(0).clamp(min=0).sqrt()
    k = main_directions(spectrum[: _resolved(spectrum, merged)])
    directions = vectors.flip(1)[:, :k]
    if tall:  # from right singular vectors to left ones
        directions = torch.linalg.qr(_times(merged, directions))[0]
    found = []
    for update in updates:
        norm = math.sqrt(squared_norm(update if update.is_contiguous() else update.mT))
        kept = float(torch.linalg.norm(_times(update.mT, directions)))
        found.append(min(kept / norm, 1.0) if norm > 0 and k > 0 else math.nan)
    return found


def spectral_norm(matrix: Tensor, *, seed: int = 0) -> float:
    """‖M‖₂, the largest singular value of a dense matrix.

    Up to a smaller side of `EXACT_SIDE` from its Gram matrix in float64; beyond it by 64 steps of
    Lanczos' method on MᵀM, reorthogonalised, from a random start. That is never too large, and too
    small by more than a share e with a chance below 1.648·√n·exp(−127·√(2e)) (Kuczyński &
    Woźniakowski 1992, doi:10.1137/0613066): for n = 10⁴ by more than 2 % in two of 10⁹ cases,
    whatever the matrix.

    Args:
        matrix: M [m, n], float32.
        seed: of the start.
    """
    if 0 in matrix.shape:
        return 0.0
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    if len(rows) <= EXACT_SIDE:
        return float(torch.linalg.eigvalsh(_gram(rows))[-1].clamp(min=0).sqrt())
    return _lanczos(rows, seed)


def _exact(
    matrix: Tensor, rank: int | None, energy: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U, S and V of the leading directions, and all singular values above rounding."""
    if matrix.shape[0] > matrix.shape[1]:
        U, S, V, spectrum = _exact(matrix.mT, rank, energy)
        return V, S, U, spectrum
    # Of torch, whose threads `one_torch_thread` holds: those of scipy would show in the digits.
    values, vectors = torch.linalg.eigh(_gram(matrix))
    spectrum = values.flip(0).clamp(min=0).sqrt()
    spectrum = spectrum[: _resolved(spectrum, matrix)]
    count = fewest_directions(spectrum, energy) if energy is not None else rank
    S = spectrum[:count]
    U = vectors.flip(1)[:, : len(S)]
    Q, R = torch.linalg.qr(_times(matrix.mT, U) / S)
    return U, S, Q * R.diagonal().sign(), spectrum


def _resolved(S: Tensor, matrix: Tensor) -> int:
    """How many singular values are above the rounding errors of float32."""
    return int(numerical_rank(S, max(matrix.shape), eps=torch.finfo(torch.float32).eps))


def _gram(rows: Tensor) -> Tensor:
    """M·Mᵀ in float64."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in torch.split(rows, _COLUMNS, dim=1):
        exact = part.double()
        gram.addmm_(exact, exact.mT)
    return gram


def _times(matrix: Tensor, columns: Tensor) -> Tensor:
    """M·X in float64, a few rows of M at a time."""
    step = max(_COLUMNS * EXACT_SIDE // max(matrix.shape[1], 1), 1)
    return torch.cat([part.double() @ columns for part in torch.split(matrix, step)])


def _lanczos(rows: Tensor, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    basis = torch.empty(len(rows), 0, dtype=torch.float64)
    image: list[Tensor] = []
    for _ in range(min(_STEPS, len(rows))):
        vector = vector - basis @ (basis.mT @ vector)
        vector = vector - basis @ (basis.mT @ vector)
        length = torch.linalg.norm(vector)
        if not length > 0:
            break
        basis = torch.cat([basis, (vector / length)[:, None]], dim=1)
        image.append(rows.mT @ basis[:, -1].float())
        vector = (rows @ image[-1]).double()
    # The largest singular value of M on the Krylov space, from its image.
    return float(torch.linalg.svdvals(torch.stack(image, dim=1).double())[0])
