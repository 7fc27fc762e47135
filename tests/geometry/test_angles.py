"""Oracles: scipy.linalg.subspace_angles, and spaces whose angles are known by construction."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from alliage.geometry import geodesic, principal_angles


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at_angles(angles, d, seed=0):
    """Two spaces in d dimensions with exactly these principal angles, in random bases."""
    k = len(angles)
    frame = torch.linalg.qr(random(d, d, seed=seed))[0]
    theta = torch.tensor(angles, dtype=torch.float64)
    second = frame[:, :k] * theta.cos() + frame[:, k : 2 * k] * theta.sin()
    return frame[:, :k] @ random(k, k, seed=seed + 1), second @ random(k, k, seed=seed + 2)


@settings(max_examples=60, deadline=None)
@given(
    r1=st.integers(1, 8), r2=st.integers(1, 8), more=st.integers(0, 30), seed=st.integers(0, 999)
)
def test_random_spaces_agree_with_scipy(r1, r2, more, seed):
    d = r1 + r2 + more
    first, second = random(d, r1, seed=seed), random(d, r2, seed=seed + 1000)
    ours = principal_angles(first, second)
    # Beside larger angles scipy takes small ones by arccos, which has eight digits at worst.
    expected = subspace_angles(first.numpy(), second.numpy())
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    assert torch.equal(ours, ours.sort(descending=True).values)


def test_spaces_that_must_meet_have_zero_angles():
    angles = principal_angles(random(6, 4), random(6, 5, seed=1))
    assert angles[0] > 0.01
    assert angles[1:].max() < 1e-14


# scipy gives 0 for the last of these angles: it mixes the orders of sines and cosines.
@pytest.mark.parametrize("angles", [(2e-8, 1e-8, 3e-12), (math.pi / 2, 0.3, 1e-9)])
def test_tiny_and_right_angles_keep_their_digits(angles):
    # Bases are in floating point: angles are known to about 1e-15, absolutely.
    np.testing.assert_allclose(principal_angles(*at_angles(angles, 30)), angles, atol=5e-15)


def test_nearly_parallel_spaces_agree_with_scipy():
    first = random(50, 5)
    second = first + 1e-7 * random(50, 5, seed=1)
    expected = subspace_angles(first.numpy(), second.numpy())
    assert expected.max() < 1e-5
    np.testing.assert_allclose(principal_angles(first, second), expected, rtol=1e-7)


def test_identical_spaces_in_other_bases_are_nearly_zero_apart():
    first = random(768, 8)
    # arccos alone gives a sum of 8.5e-8 here.
    assert principal_angles(first, first @ random(8, 8, seed=3)).sum() < 1e-13


def test_reference_value_of_a_tiny_rotation():
    t = 1e-8
    first = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    second = torch.tensor([[math.cos(t)], [math.sin(t)]], dtype=torch.float64)
    assert principal_angles(first, second).item() == pytest.approx(1e-8, rel=1e-12)


def test_half_precision_storage_is_computed_in_float64():
    first, second = random(64, 4).bfloat16(), random(64, 4, seed=1).bfloat16()
    expected = subspace_angles(first.double().numpy(), second.double().numpy())
    np.testing.assert_allclose(principal_angles(first, second), expected, rtol=1e-12)


def test_singular_values_not_eigenvalues():
    """A basis and its own permutation span one space, whatever the eigenvalues of U₁ᵀU₂."""
    first = torch.linalg.qr(random(9, 4))[0]
    assert geodesic(principal_angles(first, first[:, [1, 2, 3, 0]])) < 1e-14


def test_dependent_columns_do_not_count():
    first, second = at_angles((0.7, 0.2), 12)
    doubled = torch.cat([first, first @ random(2, 3, seed=9)], dim=1)
    np.testing.assert_allclose(principal_angles(doubled, second), [0.7, 0.2], atol=1e-13)
    assert principal_angles(torch.zeros(12, 3), second).shape == (0,)


def test_more_columns_than_dimensions_span_everything():
    assert principal_angles(random(3, 7), random(3, 2, seed=1)).abs().max() < 1e-14


def test_batches_equal_single_calls_and_end_in_nan_where_short():
    first, second = random(5, 20, 4), random(5, 20, 3, seed=1)
    second[2, :, 2] = second[2, :, 0]
    found = principal_angles(first, second)
    assert found.shape == (5, 3)
    for row, a, b in zip(found, first, second, strict=True):
        single = principal_angles(a, b)
        np.testing.assert_allclose(row[: len(single)], single, atol=1e-14)
        assert row[len(single) :].isnan().all()
    assert found.isnan().sum() == 1


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"got \[4, 2\] and \[5, 2\]"):
        principal_angles(torch.zeros(4, 2), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="NaN"):
        principal_angles(torch.full((4, 2), math.nan), torch.zeros(4, 2))
