"""Iso-C on matrices worked out by hand, against polar decompositions and Procrustes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, polar

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.tensors import close

iso_c = get_method("iso_c")


def test_worked_out_by_hand():
    # the sum is diag(3, 1): both values become their mean
    deltas = torch.tensor([[[1.0, 1.0], [0.0, 3.0]], [[2.0, -1.0], [0.0, -2.0]]])
    close(iso_c(deltas), [[2.0, 0.0], [0.0, 2.0]])
    # [[0, -4], [2, 0]] is a quarter turn of values 4 and 2
    close(iso_c(torch.tensor([[[0.0, -4.0], [2.0, 0.0]]])), [[0.0, -3.0], [3.0, 0.0]])
    close(iso_c(deltas, scale=1.5), [[3.0, 0.0], [0.0, 3.0]])


@given(st.integers(2, 9), st.integers(0, 6), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_it_is_the_polar_factor_with_the_same_nuclear_norm(size, more, wide, seed):
    shape = (3, size, size + more) if wide else (3, size + more, size)
    deltas = np.random.default_rng(seed).standard_normal(shape)
    total = deltas.sum(axis=0)
    if np.linalg.cond(total) > 1e3:
        return
    found = iso_c(torch.from_numpy(deltas).float()).double().numpy()
    values = np.linalg.svd(total, compute_uv=False)
    np.testing.assert_allclose(found, polar(total)[0] * values.mean(), atol=1e-4)
    assert np.linalg.norm(found, "nuc") == pytest.approx(values.sum(), rel=1e-5)


def test_no_rotation_is_nearer_to_the_sum():
    deltas = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(1))
    total = deltas.sum(dim=0).double().numpy()
    rotation, size = orthogonal_procrustes(np.eye(6), total)  # argmin ‖R − ΣW‖, and Σσ
    close(iso_c(deltas), rotation * size / 6)


def test_directions_that_are_not_there_stay_out():
    # rank 1 in a 3 × 3 matrix: one value, its own mean
    deltas = torch.zeros(2, 3, 3)
    deltas[:, 0, 0] = 2.0
    close(iso_c(deltas), deltas[0] * 2)


def test_bad_input():
    content = {"method": "iso_c", "base": "b", "models": ["a"], "parameters": {"weight": 1}}
    with pytest.raises(UsageError, match="iso_c has no parameter 'weight'"):
        parse_recipe(content).settings()
