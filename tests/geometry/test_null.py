"""Oracles: the published mean geodesic, the exact mean of Σcos²θ, and drawing spaces outright."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from alliage.geometry import geodesic, null, random_angles


def test_reference_mean_geodesic():
    # The reference is rounded to 0.005; three standard errors of 512 draws are 0.003.
    assert geodesic(random_angles(768, 8, 8)).mean() == pytest.approx(4.20, abs=0.008)


@pytest.mark.parametrize(("d", "r1", "r2"), [(768, 8, 8), (40, 3, 10), (12, 8, 7), (10, 6, 9)])
def test_mean_of_squared_cosines(d, r1, r2):
    energy = random_angles(d, r1, r2).cos().square().sum(-1)
    error = energy.std() / np.sqrt(len(energy))
    assert abs(energy.mean() - r1 * r2 / d) < 4 * error + 1e-12


@pytest.mark.parametrize(("d", "r1", "r2"), [(30, 4, 6), (9, 5, 6)])
def test_distribution_agrees_with_spaces_drawn_outright(d, r1, r2):
    generator = np.random.default_rng(0)
    drawn = [
        subspace_angles(generator.normal(size=(d, r1)), generator.normal(size=(d, r2)))
        for _ in range(400)
    ]
    drawn = np.sqrt(np.square(drawn).sum(axis=1))
    ours = geodesic(random_angles(d, r1, r2)).numpy()
    error = np.sqrt(drawn.var() / len(drawn) + ours.var() / len(ours))
    assert abs(drawn.mean() - ours.mean()) < 4 * error
    assert ours.std() == pytest.approx(drawn.std(), rel=0.25)


def test_the_same_every_time():
    first = random_angles(100, 4, 4)
    null._angles.cache_clear()
    assert torch.equal(first, random_angles(100, 4, 4))


def test_a_space_that_is_everything_is_nowhere_apart():
    assert not random_angles(5, 5, 2).any()
    with pytest.raises(ValueError, match="d = 4"):
        random_angles(4, 5, 1)


def test_many_angles_take_fewer_draws_a_few_at_a_time(monkeypatch):
    largest = []
    whole = torch.linalg.qr
    monkeypatch.setattr(null.torch.linalg, "qr", lambda of: largest.append(of.numel()) or whole(of))
    monkeypatch.setattr(null, "_AT_ONCE", 1 << 18)
    angles = random_angles(401, 130, 128)
    assert angles.shape == (256, 128)
    assert max(largest) <= 1 << 18
    assert len(largest) > 1
    shared = angles.cos().square().sum(1)
    assert float(shared.mean()) == pytest.approx(130 * 128 / 401, rel=0.01)
