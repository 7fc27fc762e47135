"""All pairs of updates of one weight, by their singular values and vectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from alliage.geometry.alignment import Decomposition, subspace_alignment, sum_of


class Cores(NamedTuple):
    """What n updates are in each other's singular directions.

    Attributes:
        values: U_jᵀ ΔW_i V_j at [i, j], float64 [n, n, k, k]; zero beyond the rank of j.
        S: the updates' own singular values [n, k], zero beyond the rank.
        ranks: directions of each update, integers [n].
        norms: ‖ΔW_i‖_F of the whole updates [n].
        shape: (d_out, d_in).
    """

    values: Tensor
    S: Tensor
    ranks: Tensor
    norms: Tensor
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Elements of the weight."""
        return math.prod(self.shape)

    def explained_energy(self) -> Tensor:
        """`inclusion.explained_energy` of i in j, [n, n]."""
        return self._share(self._projected().square().sum(-1))

    def core_energy(self) -> Tensor:
        """`inclusion.core_energy` of i in j, [n, n]."""
        return self._share(self.values.square().sum((-2, -1)))

    def overlap(self) -> Tensor:
        """`spectra.spectrum_overlap` of S_j and |S₂| of i in j, [n, n]; NaN where one is zero."""
        found = shared(self.S, self._projected(rounded=True))
        return found.masked_fill(self.norms[:, None] * self.ranks == 0, math.nan)

    def distance(self, p: float) -> Tensor:
        """`spectra.spectrum_distance` of S_j and S₂ of i in j, [n, n]; NaN where j is zero."""
        found: Tensor = torch.linalg.vector_norm(self.S - self._projected(), p, dim=-1)
        return found.masked_fill(self.ranks == 0, math.nan)

    def _projected(self, *, rounded: bool = False) -> Tensor:
        """S₂ of i in the directions of j, [n, n, k]; what is rounding error may be made zero."""
        found = self.values.diagonal(dim1=-2, dim2=-1)
        noise = self.norms[:, None, None] * (max(self.shape) * torch.finfo(found.dtype).eps)
        return found.where(found.abs() > noise, 0.0) if rounded else found

    def _share(self, energy: Tensor) -> Tensor:
        share = (energy / self.norms.square()[:, None]).clamp(max=1.0)
        return share.masked_fill(self.norms[:, None] * self.ranks == 0, math.nan)


class Decomposed(NamedTuple):
    """Updates of one weight by their leading singular directions.

    Attributes:
        parts: of each update.
        size: (d_out, d_in).
    """

    parts: tuple[Decomposition, ...]
    size: tuple[int, int]

    def cores(self, norms: Tensor) -> Cores:
        """`Cores` of the parts themselves; exact where those are the whole updates."""
        (S, ranks), grams = self._spectra(), self._grams()
        values = (grams[0].mT * S[:, None, None, :]) @ grams[1]
        return Cores(values, S, ranks, norms, self.size)

    def alignment(self) -> Tensor:
        """`alignment.subspace_alignment` of i in the sum of i and j, [n, n]."""
        n = len(self.parts)
        found = torch.full((n, n), math.nan, dtype=torch.float64)
        for i, j in itertools.combinations_with_replacement(range(n), 2):
            pair = self.parts[i], self.parts[j]
            merged = pair[0] if i == j else sum_of(pair)
            found[i, j] = subspace_alignment(pair[0], merged)
            found[j, i] = subspace_alignment(pair[1], merged)
        return found

    def interference(self) -> Tensor:
        """`alignment.singular_task_interference` of i and j, [n, n]."""
        (S, ranks), grams = self._spectra(), self._grams()
        # Of the product only the two blocks on the diagonal are not zero: C S₂ Dᵀ and Cᵀ S₁ D.
        block = (grams[0] * S[None, :, None, :]) @ grams[1].mT
        foreign = block.abs().sum((-2, -1))
        found = foreign + foreign.mT
        zero = ranks == 0
        return found.masked_fill(zero[:, None] | zero, math.nan)

    def spectral_distances(self) -> Tensor:
        """‖ΔW_i − ΔW_j‖₂, [n, n]."""
        n = len(self.parts)
        found = torch.zeros(n, n, dtype=torch.float64)
        for i, j in itertools.combinations(range(n), 2):
            first, second = self.parts[i], self.parts[j]
            S = sum_of([first, Decomposition(-second.U, second.S, second.V)]).S
            found[i, j] = found[j, i] = S[0] if len(S) else 0.0
        return found

    def spectra(self) -> tuple[Tensor, Tensor]:
        """S [n, k], zero beyond the ranks, and the ranks [n]."""
        return self._spectra()

    def _spectra(self) -> tuple[Tensor, Tensor]:
        k = max(len(part.S) for part in self.parts)
        S = torch.stack([pad(part.S.double(), (0, k - len(part.S))) for part in self.parts])
        return S, torch.tensor([len(part.S) for part in self.parts])

    def _grams(self) -> tuple[Tensor, Tensor]:
        """U_iᵀU_j and V_iᵀV_j at [i, j], float64 [n, n, k, k], zero beyond the ranks."""
        return _gram([part.U for part in self.parts]), _gram([part.V for part in self.parts])


def shared(own: Tensor, projected: Tensor) -> Tensor:
    """Σ min(pᵢ, qᵢ) of shares of own [n, k] and |projected| [..., n, k], [..., n]; 0 of zeros."""
    magnitudes = projected.abs()
    p, q = (
        S / S.sum(-1, keepdim=True).where(S.any(-1, keepdim=True), 1.0) for S in (own, magnitudes)
    )
    return torch.minimum(p, q).sum(-1)


def _gram(columns: Sequence[Tensor]) -> Tensor:
    k = max(side.shape[1] for side in columns)
    n = len(columns)
    rows = torch.cat([pad(side.double().mT, (0, 0, 0, k - side.shape[1])) for side in columns])
    return (rows @ rows.mT).reshape(n, k, n, k).transpose(1, 2)
