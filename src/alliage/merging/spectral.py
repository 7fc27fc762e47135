"""Matrices of task vectors by their singular vectors, in float64.

Singular vectors are known up to a sign, and up to a rotation where singular values are equal: what
is made of them here depends on left and right ones together only. Directions whose singular values
are no more than rounding errors of the stored float32 numbers are left out: which ones they are is
chance, and some methods would make them as large as the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from alliage.merging.registry import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


WORK = 24  # float32 tensors that a method needs for its float64 decompositions, as measured


def svd_seconds(rows: int, columns: int) -> float:
    """About how long `singular` takes on one core of a common machine."""
    return 5e-10 * rows * columns * min(rows, columns)


class Singular(NamedTuple):
    """The directions of a matrix U·diag(s)·Vᵀ that are more than rounding errors.

    Attributes:
        left: [out, r], orthonormal columns.
        values: [r], descending.
        right: [in, r], orthonormal columns.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def largest(self, count: int) -> Singular:
        """The first `count` directions, or all; the others are given up with their memory."""
        return Singular(
            self.left[:, :count].clone(), self.values[:count].clone(), self.right[:, :count].clone()
        )

    def product(self) -> Tensor:
        """The matrix, [out, in]."""
        return (self.left * self.values) @ self.right.mT


def singular(matrix: Tensor, norm: float | None = None) -> Singular:
    """The singular vectors of a matrix.

    Args:
        matrix: [out, in], float64.
        norm: of what the matrix is a part of, where it is a remainder: what is small beside that is
            rounding; its own largest singular value by default.
    """
    import torch

    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    largest = float(values[:1].sum()) if norm is None else norm  # there may be no columns
    rank = int((values > noise(matrix.shape, largest)).sum())
    return Singular(left[:, :rank], values[:rank], right.mT[:, :rank])


def noise(shape: tuple[int, ...], norm: float) -> float:
    """How large the singular values are that the rounding of float32 numbers makes."""
    return max(shape) * 2**-23 * norm


def orthogonalised(columns: Tensor) -> Tensor:
    """The orthonormal columns nearest to some columns [d, k]: PQᵀ, where they are PΣQᵀ.

    Where the columns are not independent, none are; then PQᵀ is over the directions that there are,
    as it is nearest and unique: twice the same column gives it twice, by √½.
    """
    found = singular(columns)
    return found.left @ found.right.mT


def mean(deltas: Tensor) -> Tensor:
    """What becomes of vectors."""
    return weighted_sum(deltas, 1.0) / len(deltas)


def merged_matrices(
    deltas: Tensor,
    merge: Callable[[Tensor], Tensor],
    vectors: Callable[[Tensor], Tensor] = mean,
) -> Tensor:
    """Merge matrices by one rule and vectors by another.

    Torch works in one thread: with more of them its decompositions end in other last digits.

    Args:
        deltas: [n, ...]; kernels of convolutions are taken as [n, out, the rest]. What has fewer
            than two sides, or one of a single element, is a vector.
        merge: from [n, out, in] to [out, in]; may keep float64.
        vectors: from [n, ...] to [...].

    Returns:
        [...], in the type of `deltas`.
    """
    from alliage.threads import one_torch_thread

    matrices = deltas.flatten(2) if deltas.ndim > 2 else None
    with one_torch_thread():
        if matrices is None or min(matrices.shape[1:]) < 2:
            return vectors(deltas)
        return merge(matrices).to(deltas.dtype).reshape(deltas.shape[1:])
