"""Oracles: reference values from independent code, and the dense product."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from alliage.geometry import (
    effective_rank,
    geodesic,
    low_rank_distances,
    low_rank_svd,
    principal_angles,
    spectral_projection,
    spectrum_overlap,
)


def grid(rows, columns, function):
    return torch.tensor(
        [[function(i, j) for j in range(1, columns + 1)] for i in range(1, rows + 1)],
        dtype=torch.float64,
    )


B1 = grid(12, 3, lambda i, j: math.cos(i * j))
B2 = grid(12, 3, lambda i, j: math.sin(i * (j + 1)))
A1 = grid(3, 10, lambda k, col: math.cos(k * col))
A2 = grid(3, 10, lambda k, col: math.cos(k * math.sqrt(col)))
A1_RANK_2 = grid(3, 10, lambda k, col: math.sin(k + col**1.5))


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_reference_distances():
    found = low_rank_distances(B1, A1, B2, A2)
    assert found.frobenius == pytest.approx(13.8169769652, abs=1e-9)
    assert found.spectral == pytest.approx(8.8283981244, abs=1e-9)
    assert found.cosine == pytest.approx(-0.0163776784, abs=1e-9)


def test_reference_spectra_and_angles():
    U, S, V = low_rank_svd(B1, A1)
    S2 = spectral_projection(U, V, B2, A2)
    angles = principal_angles(U, low_rank_svd(B2, A2)[0])
    np.testing.assert_allclose(angles, [1.5523273465, 0.9069027020, 0.8207052729], atol=1e-9)
    np.testing.assert_allclose(S, [5.986871912, 5.641987469, 3.8099728127], atol=1e-8)
    # The sign of each pair uᵢ, vᵢ cancels; that of the values does not.
    np.testing.assert_allclose(S2, [0.1430906168, 0.1372142796, -0.828639295], atol=1e-8)
    assert spectrum_overlap(S, S2) == pytest.approx(0.4995459230, abs=1e-9)
    assert effective_rank(S) == pytest.approx(2.9462414988, abs=1e-9)


def test_reference_angles_of_an_update_with_less_rank_than_its_factors():
    U, S, V = low_rank_svd(B1, A1_RANK_2)
    assert (U.shape, S.shape, V.shape) == ((12, 2), (2,), (10, 2))
    angles = principal_angles(U, low_rank_svd(B2, A2)[0])
    np.testing.assert_allclose(angles, [1.1584251877, 0.8207751872], atol=1e-9)
    assert geodesic(principal_angles(B1, B2)) != pytest.approx(geodesic(angles), abs=0.1)


@pytest.mark.parametrize(("d_out", "d_in", "r"), [(20, 15, 4), (5, 30, 5), (4, 4, 6), (9, 3, 1)])
def test_svd_agrees_with_the_dense_one(d_out, d_in, r):
    B, A = random(d_out, r), random(r, d_in, seed=1)
    U, S, V = low_rank_svd(B, A, scale=-0.5)
    dense = -0.5 * B @ A
    k = min(d_out, d_in, r)
    np.testing.assert_allclose(S, scipy.linalg.svdvals(dense)[:k], rtol=1e-10)
    np.testing.assert_allclose(U * S @ V.T, dense, atol=1e-12)
    np.testing.assert_allclose(U.T @ U, np.eye(k), atol=1e-13)
    np.testing.assert_allclose(V.T @ V, np.eye(k), atol=1e-13)


def test_a_zero_update_has_no_directions():
    U, S, V = low_rank_svd(torch.zeros(6, 2), random(2, 5))
    assert (U.shape, S.shape, V.shape) == ((6, 0), (0,), (5, 0))
    found = low_rank_distances(torch.zeros(6, 2), random(2, 5), random(6, 1), random(1, 5))
    assert found.frobenius > 0
    assert math.isnan(found.cosine)


def test_distances_agree_with_dense_ones_for_unequal_ranks_and_scales():
    C, D, E, F = random(14, 3), random(3, 11, seed=1), random(14, 5, seed=2), random(5, 11, seed=3)
    first, second = (2.0 * C @ D).numpy(), (0.25 * E @ F).numpy()
    found = low_rank_distances(C, D, E, F, 2.0, 0.25)
    cosine = (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)
    assert found.frobenius == pytest.approx(np.linalg.norm(first - second), rel=1e-12)
    assert found.spectral == pytest.approx(np.linalg.norm(first - second, 2), rel=1e-12)
    assert found.cosine == pytest.approx(cosine, abs=1e-12)


def test_nearly_equal_updates_keep_their_distance():
    """Expanding the square gives 0 or noise here."""
    B, A, change = random(64, 4), random(4, 48, seed=1), 1e-9 * random(64, 4, seed=2)
    found = low_rank_distances(B, A, B + change, A).frobenius
    exact = torch.linalg.norm(((B + change) - B) @ A)
    assert found == pytest.approx(float(exact), rel=1e-5)


def test_the_projection_is_the_best_diagonal():
    U, _, V = low_rank_svd(random(9, 3), random(3, 7, seed=1))
    B, A = random(9, 2, seed=2), random(2, 7, seed=3)
    # Least squares over vec(uᵢvᵢᵀ) is the definition.
    columns = torch.stack([torch.outer(u, v).flatten() for u, v in zip(U.T, V.T, strict=True)], 1)
    best = np.linalg.lstsq(columns.numpy(), (1.5 * B @ A).flatten().numpy(), rcond=None)[0]
    np.testing.assert_allclose(spectral_projection(U, V, B, A, 1.5), best, atol=1e-12)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \[6, 2\] and \[3, 5\]"):
        low_rank_svd(torch.zeros(6, 2), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="different shapes"):
        low_rank_distances(
            torch.zeros(6, 2), torch.zeros(2, 5), torch.zeros(7, 2), torch.zeros(2, 5)
        )
