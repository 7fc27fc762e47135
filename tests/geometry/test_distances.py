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
    "projection_two": math.sqrt(3) / 2,
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
    slope = {
        "angle_sum": 7, "asimov": 4, "projection_two": 4,
        "projection_frobenius": 5 * math.sqrt(2),
    }.get(name, 5)  # fmt: skip
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
    gap = torch.linalg.matrix_norm(first @ first.T - second @ second.T, 2)
    expected = {
        "projection_frobenius": projectors,
        "projection_two": gap,
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


def test_spaces_of_different_dimension_are_apart_by_ye_and_lim():
    # Angles π/6 and π/3, and one direction more in the second space: √(1.1708024552² + π²/4).
    angles = torch.tensor([math.pi / 3, math.pi / 6], dtype=torch.float64)
    expected = math.sqrt(1.1708024552**2 + math.pi**2 / 4)
    assert geometry.ye_lim(angles, 2, 3) == pytest.approx(expected, abs=1e-9)
    assert geometry.ye_lim(angles, 3, 2) == geometry.ye_lim(angles, 2, 3)
    assert geometry.ye_lim(angles, 2, 2) == pytest.approx(geometry.geodesic(angles), abs=1e-15)
    # A line inside a plane is at zero for all others.
    line = principal_angles(torch.eye(4)[:, :1], torch.eye(4)[:, :2])
    assert geometry.geodesic(line) == 0.0
    assert geometry.ye_lim(line, 1, 2) == pytest.approx(math.pi / 2, abs=1e-15)
    batch = torch.stack([angles, torch.tensor([math.nan, math.nan])])
    values = geometry.ye_lim(batch, torch.tensor([2, 0]), torch.tensor([3, 2]))
    assert values[0] == pytest.approx(expected, abs=1e-9)
    assert values[1].isnan()


def test_ye_lim_keeps_the_triangle_among_dimensions():
    """A metric: random spaces of one to four dimensions never break the triangle inequality."""
    generator = torch.Generator().manual_seed(0)
    spaces = [
        torch.randn(6, 1 + i % 4, generator=generator, dtype=torch.float64) for i in range(12)
    ]
    table = [
        [geometry.ye_lim(principal_angles(a, b), a.shape[1], b.shape[1]) for b in spaces]
        for a in spaces
    ]
    T = np.array(table)
    assert (T[:, None] <= T[:, :, None] + T[None] + 1e-12).all()
