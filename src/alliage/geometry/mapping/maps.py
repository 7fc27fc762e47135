"""Points in the plane from a matrix of distances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Embedding(NamedTuple):
    """Where n objects lie on a few axes.

    Attributes:
        coordinates: float64 [n, axes]. Each axis is turned so that its coordinate of largest
            magnitude is positive.
        explained: float64 [axes], the share of the total variance on each axis.
    """

    coordinates: npt.NDArray[np.float64]
    explained: npt.NDArray[np.float64]


def principal_components(distances: npt.ArrayLike, axes: int = 2) -> Embedding:
    """Principal components of the rows of a distance matrix.

    An object is described by its distances to all others. This is what "PCA of T" means in Fosse
    2024 (hal-04622988); distances on this map are not the distances given: see `classical_mds`.

    Args:
        distances: [n, n], symmetric.
        axes: how many components; those that the matrix does not have are zero.
    """
    rows = checked_distances(distances)
    u, singular, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    # The rows' mean is exactly in the null space; what rounding leaves there is no axis.
    floor = len(rows) * np.finfo(np.float64).eps * np.abs(rows).max(initial=0.0)
    singular[singular <= floor] = 0.0
    return turned(u * singular, singular**2, axes)


def classical_mds(distances: npt.ArrayLike, axes: int = 2) -> Embedding:
    """Classical multidimensional scaling (Torgerson 1952): distances as near as may be to these.

    Eigenvectors of −½·J·D²·J with J = I − 1/n. Distances that no Euclidean space has give negative
    eigenvalues; they count as zero here and among the shares.

    Args:
        distances: [n, n], symmetric, zero on the diagonal.
        axes: how many components; those that the matrix does not have are zero.
    """
    squared = checked_distances(distances) ** 2
    means = squared.mean(axis=0)
    gram = -0.5 * (squared - means[:, None] - means[None, :] + squared.mean())
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    floor = len(gram) * np.finfo(np.float64).eps * np.abs(squared).max(initial=0.0)
    values = np.where(values > floor, values, 0.0)
    return turned(vectors * np.sqrt(values), values, axes)


def checked_distances(distances: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The matrix in float64.

    Raises:
        ValueError: not [n, n], NaN or infinity in it, or, by more than 1e-9 of its largest value,
            asymmetric, negative, or not zero on the diagonal.
    """
    matrix = np.asarray(distances, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"expected distances [n, n], got the shape {list(matrix.shape)}")
    if not np.isfinite(matrix).all():
        raise ValueError("expected finite distances, found NaN or infinity")
    rounding = 1e-9 * np.abs(matrix).max(initial=0.0)
    for flaw, wanted in (
        (np.abs(matrix - matrix.T), "symmetric distances"),
        (-matrix, "distances of 0 or more"),
        (np.diag(np.abs(matrix.diagonal())), "0 on the diagonal"),
    ):
        if (flaw > rounding).any():
            i, j = map(int, np.unravel_index(flaw.argmax(), flaw.shape))
            found = f"{matrix[i, j]:.6g} at [{i}, {j}]"
            if i != j and matrix[i, j] != matrix[j, i]:
                found += f" and {matrix[j, i]:.6g} at [{j}, {i}]"
            raise ValueError(f"expected {wanted}, found {found}")
    return matrix


def is_directed(values: npt.NDArray[np.float64]) -> bool:
    """Whether [i, j] and [j, i] differ, by more than rounding, in any of [n, n, ...]."""
    return not np.allclose(values, values.swapaxes(0, 1), rtol=1e-9, atol=0.0, equal_nan=True)


def turned(
    coordinates: npt.NDArray[np.float64], variances: npt.NDArray[np.float64], axes: int
) -> Embedding:
    """The leading axes, each turned as `Embedding` says.

    Args:
        coordinates: [n, k], axes of falling variance.
        variances: [k], of all axes.
        axes: to keep; those that are missing are zero.
    """
    total = variances.sum()
    shares = variances / total if total > 0 else np.zeros_like(variances)
    missing = max(axes - len(shares), 0)
    coordinates = np.pad(coordinates[:, :axes], ((0, 0), (0, missing)))
    largest = np.abs(coordinates).argmax(axis=0)
    signs = np.where(np.take_along_axis(coordinates, largest[None], axis=0) < 0, -1.0, 1.0)
    return Embedding(coordinates * signs + 0.0, np.pad(shares[:axes], (0, missing)))
