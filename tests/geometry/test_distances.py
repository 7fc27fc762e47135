import math

import numpy as np
import pytest
import torch

from alliage import geometry
from alliage.geometry import principal_angles
from alliage.geometry.distances import ANGLE_DISTANCES

# Closed forms at (π/6, π/3).
REFERENCE = {
    "geodesic": 1.1708024552,
    "angle_sum": 1.5707963268,
    "chordal": 1.0,
    "projection_frobenius": math.sqrt(2),
    "procrustes": 1.1260325006,
    "fubini_study": 1.1229639299,
    "martin": 1.2938224119,
    "asimov": math.pi / 3,
    "binet_cauchy": 0.9013878189,
}


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_values(name):
    value = getattr(geometry, name)(torch.tensor([math.pi / 3, math.pi / 6], dtype=torch.float64))
    assert isinstance(value, float)
    assert value == pytest.approx(REFERENCE[name], abs=1e-10)


def test_every_distance_has_a_reference_value():
    assert ANGLE_DISTANCES.keys() == REFERENCE.keys()


@pytest.mark.parametrize("name", REFERENCE)
def test_batches_and_absent_angles(name):
    distance = ANGLE_DISTANCES[name]
    batch = torch.tensor([[1.0, 0.5], [0.3, math.nan], [math.nan, math.nan]])
    values = distance(batch)
    assert values[0] == pytest.approx(distance(torch.tensor([1.0, 0.5])), abs=1e-12)
    assert values[1] == pytest.approx(distance(torch.tensor([0.3])), abs=1e-12)
    assert values[2].isnan()
    assert math.isnan(distance(torch.tensor([])))


@pytest.mark.parametrize("name", REFERENCE)
def test_small_angles_keep_their_digits(name):
    """All are multiples of √Σθ², Σθ or max θ to first order, and of 1e-9 exact to nine digits."""
    slope = {"angle_sum": 7, "asimov": 4, "projection_frobenius": 5 * math.sqrt(2)}.get(name, 5)
    value = ANGLE_DISTANCES[name](torch.tensor([4e-9, 3e-9], dtype=torch.float64))
    assert value == pytest.approx(slope * 1e-9, rel=1e-9)


def test_definitions_by_matrices():
    """Projectors, aligned bases and determinants: the definitions that the formulas stand for."""
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.linalg.qr(torch.randn(9, 3, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    angles = principal_angles(first, second)
    product = first.T @ second
    projectors = torch.linalg.norm(first @ first.T - second @ second.T)
    u, _, vT = torch.linalg.svd(product)
    aligned = torch.linalg.norm(first @ u - second @ vT.T)
    determinant = torch.linalg.det(product).abs()
    expected = {
        "projection_frobenius": projectors,
        "chordal": projectors / math.sqrt(2),
        "procrustes": aligned,
        "fubini_study": determinant.acos(),
        "martin": (-2 * determinant.log()).sqrt(),
        "binet_cauchy": (1 - determinant**2).sqrt(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(ANGLE_DISTANCES[name](angles), value, rtol=1e-12)


def test_orthogonal_directions_are_infinitely_far_by_martin():
    exact = principal_angles(torch.eye(4)[:, :1], torch.eye(4)[:, 1:2])
    assert ANGLE_DISTANCES["martin"](exact) == math.inf
