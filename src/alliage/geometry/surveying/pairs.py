"""All pairs of updates of one weight at once.

For low-rank updates everything comes from two Gram matrices, BᵀB and AAᵀ of all factors side by
side: matrix products, whose cost hides that of all that follows. A Gram matrix squares condition
numbers; where that would cost digits (nearly equal updates, nearly parallel spaces, factors near
rank deficiency) the pair is measured again from the factors by orthogonal decompositions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alliage.geometry.angles import angles_between_bases
from alliage.geometry.low_rank import low_rank_distances, low_rank_svd

_AT_ONCE = 1 << 17  # numbers of all factors at a time: their float64 copies fit a cache
_SMALL = 96  # rows of a Gram matrix that are not worth leaving half of it out
# Where an expanded square is at most this share of its terms, at most 12 of 16 digits are left.
_CANCELLED = 1e-4
# Eigenvalues of Gram matrices closer to zero than this leave fewer than 10 digits in a cosine.
_ILL_CONDITIONED = 1e-6
# Beyond it, arccos has fewer than 12 digits left.
_NEARLY_PARALLEL = 1 - 1e-6


class LowRankUpdate(NamedTuple):
    """ΔW = scale·B·A with B [d_out, r] and A [r, d_in]."""

    B: Tensor
    A: Tensor
    scale: float


class Sums(NamedTuple):
    """Sums over elements of n updates; those of several weights add up.

    Attributes:
        squared: ‖ΔW_i − ΔW_j‖²_F, float64 [..., n, n].
        inner: ⟨ΔW_i, ΔW_j⟩, float64 [..., n, n].
        spread: ‖ΔW_i‖²‖ΔW_j‖² / N over whole weights of N elements, [..., n, n]: the mean square
            of `inner` if directions were random.
    """

    squared: Tensor
    inner: Tensor
    spread: Tensor

    @classmethod
    def zeros(cls, n: int) -> Sums:
        """Of no weight."""
        return cls(*torch.zeros(3, n, n, dtype=torch.float64))

    def plus(self, other: Sums) -> Sums:
        """Of both sets of weights."""
        return Sums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def of_whole(self, numel: int) -> Sums:
        """The same with `spread`: of one weight with all its elements."""
        energy = self.inner.diagonal()
        return self._replace(spread=energy[:, None] * energy / numel)

    def l2(self) -> Tensor:
        """‖ΔW_i − ΔW_j‖_F, float64 [..., n, n]."""
        return self.squared.sqrt()

    def cosine_distance(self) -> Tensor:
        """1 − cos of the angle between updates, in [0, 2]; NaN where one of the two is zero."""
        energy = self.inner.diagonal(dim1=-2, dim2=-1)[..., None]
        cosine = self.inner / (energy * energy.mT).sqrt()
        distance = (1 - cosine).clamp(0, 2)
        return distance.masked_fill((self.squared == 0) & (energy > 0), 0.0)


class Counts(NamedTuple):
    """How many elements n updates have in common; those of several weights add up.

    Attributes:
        equal: elements with equal signs, float64 [..., n, n].
        both: elements that neither leaves at zero.
        top_both: elements among the largest of both.
        top_either: elements among the largest of one or both.
        top_chance: what `top_both` were if the largest lay at random, t_i·t_j/N.
    """

    equal: Tensor
    both: Tensor
    top_both: Tensor
    top_either: Tensor
    top_chance: Tensor

    @classmethod
    def zeros(cls, n: int) -> Counts:
        """Of no weight."""
        return cls(*torch.zeros(5, n, n, dtype=torch.float64))

    @classmethod
    def of(cls, deltas: Tensor, thresholds: Tensor) -> Counts:
        """Of updates or a block of them, without `top_chance`.

        Args:
            deltas: [n, m], m below 2²⁴.
            thresholds: [n], the least magnitudes of the largest elements.
        """
        # Counts below 2²⁴ are exact in float32.
        more, less = (deltas > 0).float(), (deltas < 0).float()
        top = (deltas.abs() >= thresholds[:, None]).float()
        equal, top_both = more @ more.T + less @ less.T, top @ top.T
        changed, size = more + less, top_both.diagonal()
        either = size[:, None] + size - top_both
        counts = (equal, changed @ changed.T, top_both, either, torch.zeros_like(equal))
        return cls(*(count.double() for count in counts))

    def plus(self, other: Counts) -> Counts:
        """Of both sets of weights."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def of_whole(self, numel: int) -> Counts:
        """The same with `top_chance`: of one weight with all its elements."""
        size = self.top_both.diagonal()
        return self._replace(top_chance=size[:, None] * size / numel)

    def agreement(self) -> Tensor:
        """`signs.sign_agreement` [..., n, n]; NaN where no element is changed by both."""
        return self.equal / self.both

    def overlap(self) -> Tensor:
        """`signs.top_overlap` [..., n, n]; NaN where an update is zero."""
        size = self.top_both.diagonal(dim1=-2, dim2=-1)
        zero = size[..., None] * size[..., None, :] == 0
        return (self.top_both / self.top_either).masked_fill(zero, math.nan)


class Angles(NamedTuple):
    """Principal angles of n spaces in d dimensions.

    Attributes:
        values: float64 [n, n, k], descending; NaN ends rows of pairs with fewer angles.
        ranks: dimensions of the spaces, n of them.
        d: dimensions of the space around them.
    """

    values: Tensor
    ranks: tuple[int, ...]
    d: int


def dense_sums(deltas: Tensor) -> Sums:
    """Sums over the elements of dense updates, or of a block of them.

    Differences are taken before they are squared, in float64.

    Args:
        deltas: [n, m].
    """
    exact = deltas.double()
    n = len(exact)
    squared = exact.new_zeros(n, n)
    squared[*torch.triu_indices(n, n, 1)] = torch.pdist(exact).square()
    return Sums(squared + squared.T, exact @ exact.T, exact.new_zeros(n, n))


def space_angles(bases: Sequence[Tensor]) -> Angles:
    """Principal angles between all pairs of spaces.

    Args:
        bases: orthonormal, float64, [d, k_i] each; k_i may be 0, and such a space has no angles.
    """
    ranks = tuple(basis.shape[1] for basis in bases)
    n = len(bases)
    values = torch.full((n, n, max(ranks)), math.nan, dtype=torch.float64)
    for i, first in enumerate(bases):
        values[i, i, : ranks[i]] = 0.0
        for j in range(i):
            count = min(ranks[i], ranks[j])
            if count:
                filled = max(ranks[i], ranks[j]) == len(first)  # one of the two is everything
                equal = filled or (ranks[i] == ranks[j] and torch.equal(first, bases[j]))
                found = 0.0 if equal else angles_between_bases(first, bases[j])
                values[i, j, :count] = values[j, i, :count] = found
    return Angles(values, ranks, bases[0].shape[0])


def low_rank_pairs(
    updates: Sequence[LowRankUpdate], *, angles: bool = True
) -> tuple[Sums, Angles | None]:
    """Sums and principal angles of Im(ΔW) for all pairs of low-rank updates of one weight.

    Relative errors are below 1e-11 for the sums, absolute ones below 1e-9 for angles; of an update
    that nearly cancels in itself, such as the difference of two adapters, only as many digits
    remain as float64 leaves to the difference of its terms.

    Args:
        updates: n of them, of the same d_out and d_in; ranks may differ.
        angles: whether to measure them; None in the answer if not.
    """
    ranks = torch.tensor([update.B.shape[1] for update in updates])
    k = int(ranks.max())
    gram_B = _gram([update.B.T for update in updates], k)
    gram_A = _gram([update.A for update in updates], k)
    products = gram_B * gram_A
    spoiled = _cancelled_inside(products) | torch.tensor([u.scale == 0 for u in updates])
    if bool(spoiled.any()):
        mended = [_mended(u) if bad else u for u, bad in zip(updates, spoiled, strict=True)]
        return low_rank_pairs(mended, angles=angles)
    sums = _low_rank_sums(updates, products)
    if not angles:
        return sums, None
    values = _angles_from_gram(gram_B, gram_A, ranks)
    if values is None:
        return sums, space_angles([low_rank_svd(*update)[0] for update in updates])
    return sums, Angles(values, tuple(ranks.tolist()), updates[0].B.shape[0])


def _cancelled_inside(products: Tensor) -> Tensor:
    """Which updates nearly cancel in themselves, as a difference of adapters may; [n], bool."""
    own = products.diagonal().movedim(-1, 0)
    return own.sum((1, 2)) < _CANCELLED * own.abs().sum((1, 2))


def _mended(update: LowRankUpdate) -> LowRankUpdate:
    """The same update by its singular vectors, whose terms cannot cancel."""
    U, S, V = low_rank_svd(*update)
    if not len(S):  # nothing is left; factors have one rank at least
        return LowRankUpdate(U.new_zeros(len(U), 1), V.new_zeros(1, len(V)), 1.0)
    return LowRankUpdate(U * S, V.mT, 1.0)


def _low_rank_sums(updates: Sequence[LowRankUpdate], products: Tensor) -> Sums:
    """From the blocks (B_iᵀB_j) ∘ (A_iA_jᵀ), [n, n, k, k]."""
    scales = torch.tensor([update.scale for update in updates], dtype=torch.float64)
    inner = products.sum((2, 3)) * scales[:, None] * scales
    energy = inner.diagonal()
    both = energy[:, None] + energy
    squared = both - 2 * inner
    squared.fill_diagonal_(0.0)
    for i, j in torch.nonzero((squared <= _CANCELLED * both).triu(1)).tolist():
        first, second = updates[i], updates[j]
        found = low_rank_distances(first.B, first.A, second.B, second.A, first.scale, second.scale)
        value = 0.0 if _equal(first, second) else found.frobenius**2
        squared[i, j] = squared[j, i] = value
    return Sums(squared, inner, torch.zeros_like(inner)).of_whole(
        len(updates[0].B) * updates[0].A.shape[1]
    )


def _angles_from_gram(gram_B: Tensor, gram_A: Tensor, ranks: Tensor) -> Tensor | None:
    """Angles [n, n, k] from blocks [n, n, k, k], or nothing where those are too ill-conditioned."""
    n, k = len(ranks), gram_B.shape[-1]
    if not ranks.all():
        return None
    each = torch.arange(n)
    spectrum_A = torch.linalg.eigvalsh(gram_A[each, each])
    spectrum_B, vectors = torch.linalg.eigh(gram_B[each, each])
    for spectrum in (spectrum_A, spectrum_B):  # only with A of full row rank is Im(ΔW) = Im(B)
        smallest, largest = spectrum[each, k - ranks], spectrum[:, -1]
        if not bool((smallest > _ILL_CONDITIONED * largest).all()):
            return None
    # U_i = B_i W_i is orthonormal, but for columns of zeros.
    padding = torch.arange(k) < (k - ranks)[:, None]
    W = vectors * spectrum_B.rsqrt().masked_fill(padding, 0.0)[:, None]
    first, second = torch.triu_indices(n, n, 1)
    cosines = torch.linalg.svdvals(W[first].mT @ gram_B[first, second] @ W[second])
    if bool((cosines > _NEARLY_PARALLEL).any()):
        return None
    values = torch.zeros(n, n, k, dtype=torch.float64)
    values[first, second] = values[second, first] = cosines.acos()
    # Ascending so far; what the zeros add, π/2, comes last.
    counts = torch.minimum(ranks[:, None], ranks)
    absent = torch.arange(k) >= counts[..., None]
    values = values.masked_fill(absent, -1.0).sort(dim=-1, descending=True).values
    return values.masked_fill(absent, math.nan)


def _gram(sides: Sequence[Tensor], k: int) -> Tensor:
    """All products of rows of n factors [r_i, d], as blocks [n, n, k, k]; zeros beyond r_i.

    A few columns of all factors at a time go into one buffer, which stays in the cache: copies of
    whole factors take as long as the products. Only blocks on and above the diagonal are made.
    """
    n, d = len(sides), sides[0].shape[1]
    size = n * k
    gram = torch.zeros(size, size, dtype=torch.float64)
    upright = sides[0].stride(1) == 1  # else the rows of the factor as it lies are its columns
    columns = min(max(_AT_ONCE // size, 1), d)
    buffer = torch.zeros((size, columns) if upright else (columns, size), dtype=torch.float64)
    rows = buffer if upright else buffer.T
    step = -(-size // 4) if size > _SMALL else size
    for start in range(0, d, columns):
        part = rows[:, : min(columns, d - start)]
        for place, side in enumerate(sides):
            part[place * k : place * k + len(side)] = side[:, start : start + columns]
        for first in range(0, size, step):
            gram[first : first + step, first:].addmm_(part[first : first + step], part[first:].T)
    for first in range(0, size, step):
        gram[first + step :, first : first + step] = gram[first : first + step, first + step :].T
    return gram.reshape(n, k, n, k).transpose(1, 2)


def _equal(first: LowRankUpdate, second: LowRankUpdate) -> bool:
    return (
        first.scale == second.scale
        and torch.equal(first.B, second.B)
        and torch.equal(first.A, second.A)
    )
