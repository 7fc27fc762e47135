"""Oracles: numpy's and scipy's dense decompositions."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from alliage.geometry import leading
from alliage.geometry.leading import leading_directions, spectral_norm
from tests.geometry.test_low_rank import random


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (5000, 6), (6, 5000), (20, 20)])
def test_agrees_with_the_dense_decomposition(shape):
    matrix = random(*shape).float()
    u, s, vT = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    found = leading_directions(matrix, 4)
    assert (found.U.shape, found.V.shape) == ((shape[0], 4), (shape[1], 4))
    np.testing.assert_allclose(found.S, s[:4], rtol=1e-12)
    assert scipy.linalg.subspace_angles(u[:, :4], found.U.numpy()).max() < 1e-10
    assert scipy.linalg.subspace_angles(vT[:4].T, found.V.numpy()).max() < 1e-10
    np.testing.assert_allclose(found.V.T @ found.V, np.eye(4), atol=1e-12)
    best = (u[:, :4] * s[:4]) @ vT[:4]
    np.testing.assert_allclose(found.U * found.S @ found.V.T, best, atol=1e-10)
    assert found.energy == pytest.approx((s[:4] ** 2).sum() / (s**2).sum(), rel=1e-12)
    assert found.error < 1e-12


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_stops_at_the_numerical_rank(shape):
    matrix = (random(shape[0], 3) @ random(3, shape[1], seed=1)).float()
    found = leading_directions(matrix, 8)
    assert found.U.shape == (shape[0], 3)
    np.testing.assert_allclose(found.U.T @ found.U, np.eye(3), atol=1e-12)
    assert found.energy == pytest.approx(1.0, abs=1e-12)
    nothing = leading_directions(torch.zeros(shape), 8)
    assert (nothing.U.shape, nothing.V.shape) == ((shape[0], 0), (shape[1], 0))
    assert math.isnan(nothing.energy)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_a_share_of_energy_takes_as_few_directions_as_hold_it(shape):
    decay = 0.8 ** torch.arange(60, dtype=torch.float64)
    first, second = (torch.linalg.qr(random(size, 60, seed=size))[0] for size in shape)
    matrix = ((first * decay) @ second.T).float()
    found = leading_directions(matrix, energy=0.9)
    # Σ from k of 0.64ⁱ is 0.64ᵏ of all: 0.64⁵ = 0.107, 0.64⁶ = 0.069.
    assert len(found.S) == 6
    assert found.energy == pytest.approx(1 - 0.64**6, abs=1e-5)


def test_a_share_of_energy_is_exact_up_to_the_exact_side():
    """Of slowly falling values drawn directions would hold less and so be more."""
    first, second = (torch.linalg.qr(random(size, 200, seed=size))[0] for size in (200, 300))
    decay = 0.99 ** torch.arange(200, dtype=torch.float64)
    matrix = (first * decay @ second.T).float()
    s = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    found = leading_directions(matrix, energy=0.2)
    k = int(((s**2).cumsum() < 0.2 * (s**2).sum()).sum()) + 1
    np.testing.assert_allclose(found.S, s[:k], rtol=1e-10)
    assert found.error < 1e-10
    np.testing.assert_allclose(found.spectrum, s, rtol=1e-7)


def test_drawn_directions_say_how_exact_they_are(monkeypatch):
    """Beyond the exact side; the bound holds for every value, and shrinks as spectra fall."""
    monkeypatch.setattr(leading, "EXACT_SIDE", 50)
    falling = (random(200, 40) * 0.7 ** torch.arange(40)) @ random(40, 300, seed=1)
    flat = random(200, 300, seed=2)
    for matrix, sharpest, bluntest in ((falling, 0.0, 1e-6), (flat, 1e-4, 0.5)):
        found = leading_directions(matrix.float(), 8)
        exact = np.linalg.svd(matrix.float().double().numpy(), compute_uv=False)
        gaps = [np.abs(exact - value).min() for value in found.S.numpy()]
        assert max(gaps) <= found.error * exact[0] + 1e-12
        assert sharpest <= found.error < bluntest
        assert leading_directions(matrix.float(), 8).S.equal(found.S)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (7, 7)])
def test_the_spectral_norm_of_small_matrices_is_exact(shape):
    matrix = random(*shape).float()
    expected = np.linalg.norm(matrix.double().numpy(), 2)
    assert spectral_norm(matrix) == pytest.approx(expected, rel=1e-12)
    assert spectral_norm(torch.zeros(shape)) == 0.0


@pytest.mark.parametrize("shape", [(200, 300), (300, 200)])
def test_the_spectral_norm_of_large_ones_is_a_close_lower_bound(monkeypatch, shape):
    monkeypatch.setattr(leading, "EXACT_SIDE", 50)
    for seed in range(5):
        matrix = random(*shape, seed=seed).float()
        exact = np.linalg.norm(matrix.double().numpy(), 2)
        found = spectral_norm(matrix)
        assert exact * (1 - 1e-4) < found < exact * (1 + 1e-6)
    low = (random(200, 2) @ random(2, 300, seed=1)).float()  # the steps end early
    assert spectral_norm(low) == pytest.approx(np.linalg.norm(low.numpy(), 2), rel=1e-5)


def test_neither_rank_nor_energy_is_refused():
    with pytest.raises(ValueError, match="rank or a share"):
        leading_directions(torch.ones(2, 2))
