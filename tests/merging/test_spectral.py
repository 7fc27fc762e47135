"""Singular vectors, orthogonal columns, and what all methods on matrices share."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import polar

from alliage.merging import get_method, plan
from alliage.merging.spectral import WORK, merged_matrices, noise, orthogonalised, singular
from tests.merging.methods.through_engine import SHAPES, checkpoints, deltas_of, merged_everyhow
from tests.merging.tensors import close, draw
from tests.merging.test_odd_inputs import recipe

SPECTRAL = ("tsv_m", "iso_c", "iso_cts", "svc", "star", "wudi")
METHODS = pytest.mark.parametrize("name", SPECTRAL)

close64 = partial(close, dtype=torch.float64)


def test_a_matrix_of_rank_two_has_two_directions():
    matrix = (draw(9, 2) @ draw(2, 7, seed=1)).double()  # float32 products: noise in all others
    found = singular(matrix)
    assert found.left.shape == (9, 2)
    assert found.right.shape == (7, 2)
    close64(found.product(), matrix)
    assert singular(matrix * 0).values.numel() == 0
    assert singular(matrix, norm=1e9).values.numel() == 0  # a remainder of something large
    assert noise((9, 7), 2.0) == 18 * 2**-23


def test_the_largest_directions_are_the_best_approximation():
    # diag(5, 3, 1) rotated on both sides: the first two directions leave out exactly the 1
    left, right = (torch.linalg.qr(draw(3, 3, seed=s).double()).Q for s in (2, 3))
    matrix = left @ torch.diag(torch.tensor([5.0, 3.0, 1.0]).double()) @ right.mT
    rest = matrix - singular(matrix).largest(2).product()
    assert float(rest.norm()) == pytest.approx(1.0, abs=1e-12)
    close64(rest, torch.outer(left[:, 2], right[:, 2]), atol=1e-12)


def test_two_columns_at_sixty_degrees_turn_by_fifteen_each():
    # their bisector is at 30°; orthogonal and symmetric to it are -15° and 75°
    angle = np.radians([0, 60])
    found = orthogonalised(torch.tensor(np.array([np.cos(angle), np.sin(angle)])))
    turned = np.radians([-15, 75])
    close64(found, np.array([np.cos(turned), np.sin(turned)]), atol=1e-12)


@given(st.integers(1, 12), st.integers(0, 8), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_orthogonal_columns_are_the_polar_factor(columns, more, seed):
    matrix = np.random.default_rng(seed).standard_normal((columns + more, columns))
    if np.linalg.cond(matrix) > 1e3:
        return
    found = orthogonalised(torch.from_numpy(matrix)).numpy()
    np.testing.assert_allclose(found, polar(matrix)[0], rtol=0, atol=1e-9)


def test_dependent_columns_share_their_place():
    one = torch.tensor([[1.0], [0.0], [0.0]]).double()
    close64(orthogonalised(one.expand(3, 2)), one.expand(3, 2) * 0.5**0.5, atol=1e-12)
    assert orthogonalised(torch.zeros(4, 0).double()).shape == (4, 0)
    wide = orthogonalised(draw(3, 5).double())  # more columns than there is room for
    close64(wide @ wide.mT, torch.eye(3), atol=1e-12)


def test_what_has_one_side_is_a_vector():
    for shape in ((2,), (2, 5), (2, 1, 5), (2, 5, 1), (2, 5, 1, 1), (2, 0, 5)):
        deltas = draw(*shape)
        found = merged_matrices(deltas, lambda matrices: pytest.fail("a vector"))
        close(found, deltas.mean(dim=0))
    merged_matrices(
        draw(2, 6, 4, 3, 3), lambda matrices: matrices[0] if matrices.shape == (2, 6, 36) else 0
    )


@METHODS
def test_zeros_stay_zeros_and_a_task_without_changes_does_no_harm(name):
    method, deltas = get_method(name), draw(3, 6, 5)
    assert not method(torch.zeros(3, 6, 5)).any()
    deltas[1] = 0
    assert method(deltas).isfinite().all()
    assert method(deltas).any()


@METHODS
@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (2, 2), (5, 3, 2, 2)])
def test_the_order_of_the_tasks_does_not_count(name, shape):
    deltas, order = draw(4, *shape), [2, 0, 3, 1]
    close(get_method(name)(deltas), get_method(name)(deltas[order]), rtol=1e-4)


@METHODS
def test_singular_vectors_signs_and_rotations_do_not_count(name, monkeypatch):
    """Another decomposition of the same matrices, as good as the first one."""
    deltas, method = draw(3, 8, 6), get_method(name)
    expected, svd = method(deltas), torch.linalg.svd

    def turned(matrix, full_matrices=True):
        left, values, right = svd(matrix, full_matrices=full_matrices)
        signs = 1 - 2 * (torch.arange(len(values)) % 2).double()
        return left * signs, values, right * signs[:, None]

    monkeypatch.setattr(torch.linalg, "svd", turned)
    close(method(deltas), expected)


@METHODS
def test_a_task_of_low_rank_brings_no_directions_of_chance(name):
    # the same matrices, once with rounding errors and once without: what comes out is near
    factors, others = draw(3, 20, 2), draw(3, 2, 16, seed=1)
    exact = (factors.double() @ others.double()).float()
    rounded = torch.nextafter(exact, exact + draw(3, 20, 16, seed=2).sign())
    assert not torch.equal(exact, rounded)
    close(get_method(name)(rounded), get_method(name)(exact), rtol=1e-3, atol=1e-4)


def test_matrices_are_merged_in_one_thread_of_torch():
    before, seen = torch.get_num_threads(), []

    def merge(matrices):
        seen.append(torch.get_num_threads())
        return matrices[0]

    try:
        torch.set_num_threads(2)
        merged_matrices(draw(2, 3, 3), merge)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@METHODS
def test_a_kernel_is_a_matrix_of_its_outputs(name):
    deltas = draw(3, 6, 4, 3, 3)
    flat = get_method(name)(deltas.reshape(3, 6, 36))
    assert torch.equal(get_method(name)(deltas), flat.reshape(6, 4, 3, 3))


@METHODS
def test_the_engine_merges_each_parameter_whole(name, tmp_path):
    models = checkpoints(tmp_path)
    found = merged_everyhow(tmp_path, name)
    for key in SHAPES:
        merged = get_method(name)(deltas_of(models, key))
        close(found[key], models[0][key] + merged)


@METHODS
def test_the_memory_of_decompositions_is_planned(name, tmp_path):
    checkpoints(tmp_path)
    # of the largest matrix: five float32 copies of each of three models, four more, and the work
    assert plan(recipe(tmp_path, name, "abc")).least_memory == 4 * 150 * 100 * (5 * 3 + 4 + WORK)
