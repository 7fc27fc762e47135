"""Oracles: matrices worked out by hand and the dense products written with numpy."""

import math

import numpy as np
import pytest
import torch

from alliage.geometry import (
    core_energy,
    explained_energy,
    low_rank_svd,
    spectral_projection,
)
from alliage.geometry.inclusion import dense_core_energy, dense_projection
from tests.geometry.test_low_rank import A1, A2, B1, B2, random

E = torch.eye(3, dtype=torch.float64)


def test_by_hand():
    # ΔW₁ has u = v = (e1, e2). ΔW₂ = [[3, 4, 0], [0, 0, 0], [0, 0, 12]], ‖ΔW₂‖² = 9 + 16 + 144.
    # Its core in the space of ΔW₁ is [[3, 4], [0, 0]]: 25; the diagonal alone: 9.
    update = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 12.0]])
    U = V = E[:, :2]
    assert dense_projection(U, V, update).tolist() == [[3, 4], [0, 0]]
    assert dense_core_energy(U, V, update) == pytest.approx(25 / 169, rel=1e-14)
    assert core_energy(U, V, update, E) == pytest.approx(25 / 169, rel=1e-14)
    S2 = spectral_projection(U, V, update, E)
    assert S2.tolist() == [3, 0]
    assert explained_energy(S2, 13.0) == pytest.approx(9 / 169, rel=1e-14)


def test_reference_updates():
    """Dense definitions on the factors of the reference table, in numpy."""
    U, _, V = low_rank_svd(B1, A1)
    second = (B2 @ A2).numpy()
    U1, _, V1 = np.linalg.svd((B1 @ A1).numpy())
    core = U1[:, :3].T @ second @ V1[:3].T
    norm = np.linalg.norm(second)
    assert core_energy(U, V, B2, A2) == pytest.approx((core**2).sum() / norm**2, rel=1e-10)
    explained = explained_energy(spectral_projection(U, V, B2, A2), norm)
    assert explained == pytest.approx((np.diag(core) ** 2).sum() / norm**2, rel=1e-8)
    # From the published S₂ and the dense norm.
    S2 = np.array([0.1430906168, 0.1372142796, -0.828639295])
    assert explained == pytest.approx((S2**2).sum() / norm**2, rel=1e-8)


def test_scale_does_not_matter_and_the_space_of_an_update_holds_all_of_it():
    U, S, V = low_rank_svd(B2, A2)
    assert core_energy(U, V, B2, A2, -3.0) == pytest.approx(1.0, abs=1e-12)
    assert explained_energy(S, float(S.norm())) == pytest.approx(1.0, abs=1e-12)


def test_inclusion_is_not_symmetric():
    """Four directions hold the first one among them; it holds a quarter of their energy."""
    large, small = (
        torch.eye(6, dtype=torch.float64)[:, :4],
        torch.eye(6, dtype=torch.float64)[:, :1],
    )
    assert core_energy(large, large, small, small.T) == 1.0
    assert core_energy(small, small, large, large.T) == 0.25


def test_the_mean_over_random_spaces_is_the_share_of_dimensions():
    m, n, k = 9, 7, 3
    update = random(m, 4) @ random(4, n, seed=1)
    generator = torch.Generator().manual_seed(2)
    cores, diagonals = [], []
    for _ in range(4000):
        U, V = (
            torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64))[0]
            for d in (m, n)
        )
        core = dense_projection(U, V, update)
        cores.append(core_energy(U, V, update, torch.eye(n, dtype=torch.float64)))
        diagonals.append(explained_energy(core.diagonal(), float(update.norm())))
    for values, mean in ((cores, k * k / (m * n)), (diagonals, k / (m * n))):
        assert abs(np.mean(values) - mean) < 4 * np.std(values) / math.sqrt(len(values))


def test_zero_is_in_nothing():
    U = V = E[:, :2]
    assert math.isnan(dense_core_energy(U, V, torch.zeros(3, 3)))
    assert math.isnan(core_energy(U, V, torch.zeros(3, 1), torch.ones(1, 3)))
    assert math.isnan(explained_energy(torch.zeros(2), 0.0))


def test_cancelling_terms_keep_their_norm():
    """ΔW₂ = (B + δ)·A − B·A: its norm is lost in a Gram matrix."""
    B, A, change = random(40, 3), random(3, 30, seed=1), 1e-9 * random(40, 3, seed=2)
    B2, A2 = torch.cat([B + change, -B], dim=1), torch.cat([A, A])
    U, _, V = low_rank_svd((B + change) - B, A)
    assert core_energy(U, V, B2, A2) == pytest.approx(1.0, abs=1e-5)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \[6, 2\] and \[3, 5\]"):
        core_energy(E, E, torch.zeros(6, 2), torch.zeros(3, 5))


def test_of_no_directions_nothing_is_defined():
    """As in surveys: a model that equals the base holds no space to lie in."""
    U, V, B, A = torch.zeros(4, 0), torch.zeros(3, 0), random(4, 2), random(2, 3)
    assert math.isnan(core_energy(U, V, B, A))
    assert math.isnan(dense_core_energy(U, V, B @ A))
    assert math.isnan(explained_energy(torch.zeros(0), 1.0))
