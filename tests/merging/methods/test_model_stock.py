"""Model Stock on vectors worked out by hand, its geometry, and through the engine."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.methods.through_engine import SHAPES, checkpoints, deltas_of, merged_everyhow
from tests.merging.tensors import close

model_stock = get_method("model_stock")


def test_worked_out_by_hand():
    # 60° apart: c = ½, t = 2·½ / (1 + ½) = ⅔, of the average (¾, √3/4)
    deltas = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    close(model_stock(deltas), [0.5, math.sqrt(3) / 6])
    # three axes: c = 0, and nothing moves; three equal ones: c = 1 and t = 1
    assert not model_stock(torch.eye(3)).any()
    close(model_stock(torch.ones(3, 4)), torch.ones(4))
    # cosines 1, 0 and 0: c = ⅓, t = 3·⅓ / (1 + 2·⅓) = 3/5, of the average (⅔, ⅓)
    close(model_stock(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])), [0.4, 0.2])


def test_task_vectors_that_point_apart_leave_the_base():
    # c = -0.9988 and the formula's t = -1601, of an average (0, 0.025)
    nearly = torch.tensor([[1.0, 0.0], [-1.0, 0.05]])
    assert not model_stock(nearly).any()
    assert model_stock(nearly, bounded=False)[1] < -40
    # c = -0.6: t = -1.2 / 0.4 = -3 of the average (0.2, 0.4)
    apart = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
    close(model_stock(apart, bounded=False), [-0.6, -1.2])
    # each row by itself: the first is left, the second, c = ½, goes on as before
    rows = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[-0.6, 0.8], [0.5, math.sqrt(3) / 2]]])
    close(model_stock(rows, filter_wise=True), [[0.0, 0.0], [0.5, math.sqrt(3) / 6]])


@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_it_never_leaves_the_way_from_the_base_to_the_average(models, size, seed):
    deltas = torch.randn(models, size, generator=torch.Generator().manual_seed(seed))
    average = deltas.mean(dim=0)
    merged = model_stock(deltas)
    assert float(merged @ average) >= 0
    assert float(merged.norm()) <= float(average.norm()) * (1 + 1e-5)


def test_each_row_by_itself_worked_out_by_hand():
    # first rows equal, t = 1; second rows at a right angle, t = 0
    deltas = torch.tensor([[[1.0, 2.0], [1.0, 0.0]], [[1.0, 2.0], [0.0, 1.0]]])
    close(model_stock(deltas, filter_wise=True), [[1.0, 2.0], [0.0, 0.0]])
    # together: c = 5/6, t = 10/11, of the average
    close(model_stock(deltas), 10 / 11 * deltas.mean(dim=0))
    kernels = deltas.reshape(2, 2, 1, 1, 2)
    close(model_stock(kernels, filter_wise=True), [[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    close(model_stock(deltas[:, 0], filter_wise=True), [1.0, 2.0])  # a vector is one row


def test_it_is_the_point_nearest_to_the_centre():
    """On a shell whose models differ from the centre by orthogonal steps of one length."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(20, 5, generator=generator)).Q.mT
    centre = 0.7 * axes[0]  # seen from the base
    deltas = centre + 0.3 * axes[1:]
    average = deltas.mean(dim=0)
    nearest = (average @ centre) / (average @ average) * average
    close(model_stock(deltas), nearest)


def test_small_steps_have_the_same_angles_as_large_ones():
    deltas = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    for filter_wise in (True, False):
        found = model_stock(1e-6 * deltas, filter_wise=filter_wise)
        close(1e6 * found, model_stock(deltas, filter_wise=filter_wise), rtol=1e-4)


def test_steps_that_cancel_and_models_without_any():
    one = torch.tensor([1.0, 2.0])
    for bounded in (True, False):
        assert not model_stock(torch.stack([one, -one]), bounded=bounded).any()
        # whose average is not zero
        assert not model_stock(torch.stack([one, -3 * one]), bounded=bounded).any()
    assert not model_stock(torch.stack([one, 0 * one])).any()  # no angle counts as a right one
    assert torch.equal(model_stock(one[None]), one)
    assert model_stock(torch.empty(2, 0)).shape == (0,)


@pytest.mark.parametrize("filter_wise", [False, True])
def test_the_engine_merges_each_parameter_whole(tmp_path, filter_wise):
    models = checkpoints(tmp_path)
    found = merged_everyhow(tmp_path, "model_stock", parameters={"filter_wise": filter_wise})
    for name in SHAPES:
        merged = model_stock(deltas_of(models, name), filter_wise=filter_wise)
        close(found[name], models[0][name] + merged)


def test_bad_input():
    with pytest.raises(UsageError, match=r"filter_wise: must be true or false, got 'rows'"):
        parse_recipe(
            {"method": "model_stock", "models": ["a"], "parameters": {"filter_wise": "rows"}}
        ).settings()
