"""NuSLERP on angles worked out by hand, against slerp and scipy, and through the engine."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import geometric_slerp

from alliage.errors import UsageError
from alliage.merging import describe, get_method, parse_recipe, plan, slerp
from tests.merging.methods.through_engine import SHAPES, checkpoints, deltas_of, merged_everyhow
from tests.merging.tensors import close, draw
from tests.merging.test_odd_inputs import recipe

nuslerp, nuslerp_delta = get_method("nuslerp"), get_method("nuslerp_delta")
HALF = math.sqrt(0.5)


def test_worked_out_by_hand():
    axes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    close(nuslerp(axes), [HALF, HALF])
    close(nuslerp(axes, weight=[2.0, 1.0]), [math.sqrt(3) / 2, 0.5])  # t = ⅓: thirty degrees
    close(nuslerp(axes, weight=[0.0, 3.0]), [0.0, 1.0])
    close(nuslerp(axes, weight=[0.0, 0.0]), [HALF, HALF])
    close(nuslerp_delta(axes), nuslerp(axes))


def test_rows_and_columns_worked_out_by_hand():
    # rows: (1, 0) and (0, 1) at a right angle; (0, 2) and (0, 4) on a line
    # columns: (1, 0) and (0, 0), no direction, so a right angle; (0, 2) and (1, 4)
    pair = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, 4.0]]])
    close(nuslerp(pair, flatten=False), [[HALF, HALF], [0.0, 3.0]])
    angle = math.acos(8 / (2 * math.sqrt(17)))
    share = math.sin(angle / 2) / math.sin(angle)
    close(nuslerp(pair, flatten=False, columns=True), [[HALF, share], [0.0, 6 * share]])
    turned = nuslerp(pair.mT, flatten=False).mT
    close(nuslerp(pair, flatten=False, columns=True), turned)


@given(st.integers(2, 30), st.floats(0, 1), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_on_the_unit_sphere_it_is_scipys(size, t, seed):
    pair = np.random.default_rng(seed).standard_normal((2, size))
    pair /= np.linalg.norm(pair, axis=1, keepdims=True)
    if abs(pair[0] @ pair[1]) > 0.999:
        return
    found = nuslerp(torch.from_numpy(pair).float(), weight=[1 - t, t])
    np.testing.assert_allclose(found.numpy(), geometric_slerp(*pair, t), rtol=0, atol=1e-5)


def test_with_equal_shares_it_is_slerp_halfway():
    pair = draw(2, 7, 5)
    close(nuslerp(pair), slerp(pair))
    by_rows = torch.stack([slerp(rows) for rows in pair.transpose(0, 1)])
    close(nuslerp(pair, flatten=False), by_rows)


def test_nearly_parallel_equal_opposite_and_zero_vectors():
    ones = torch.ones(2, 5)
    assert torch.equal(nuslerp(ones), ones[0])
    close(nuslerp(torch.stack([ones[0], -ones[0]]), weight=[3.0, 1.0]), 0.5 * ones[0])
    near = torch.stack([ones[0], ones[0] + 1e-4 * draw(5)])
    close(nuslerp(near), near.mean(dim=0))
    assert not nuslerp(0 * ones).any()
    assert nuslerp(torch.empty(2, 0)).shape == (0,)
    assert nuslerp(torch.tensor([3.0, 5.0]), flatten=False).item() == 4.0


def test_a_kernel_keeps_its_shape_by_columns():
    pair = draw(2, 4, 3, 2, 2)
    found = nuslerp(pair, flatten=False, columns=True)
    expected = torch.stack(
        [slerp(pair[:, :, i, j, k]) for i in range(3) for j in range(2) for k in range(2)], dim=1
    )
    close(found, expected.reshape(4, 3, 2, 2))


@pytest.mark.parametrize("method", ["nuslerp", "nuslerp_delta"])
@pytest.mark.parametrize("flatten", [True, False])
def test_the_engine_merges_each_parameter_whole(tmp_path, method, flatten):
    models = checkpoints(tmp_path, "ab")
    delta = method.endswith("delta")
    base = "base" if delta else None
    found = merged_everyhow(tmp_path, method, "ab", base=base, parameters={"flatten": flatten})
    for name in SHAPES:
        if delta:
            expected = models[0][name] + nuslerp_delta(deltas_of(models, name), flatten=flatten)
        else:
            expected = nuslerp(torch.stack([model[name] for model in models[1:]]), flatten=flatten)
        close(found[name], expected)


def test_shares_that_rules_make_zero_for_a_tensor_are_equal_there(tmp_path):
    models = checkpoints(tmp_path, "ab")
    rules = [{"filter": "bias", "value": 0.0}, {"value": 1.0}]
    found = merged_everyhow(tmp_path, "nuslerp", "ab", base=None, parameters={"weight": rules})
    pair = torch.stack([model["layers.0.bias"] for model in models[1:]])
    close(found["layers.0.bias"], nuslerp(pair))
    assert "equal for tensors of which rules make both zero" in (
        describe("nuslerp").parameters["weight"].meaning
    )
    with pytest.raises(UsageError, match="all weights are zero"):
        recipe(tmp_path, "nuslerp", "ab", None, parameters={"weight": 0.0}).settings()


def test_bad_input(tmp_path):
    with pytest.raises(UsageError, match=r"flatten: must be true or false, got 'rows'"):
        parse_recipe(
            {"method": "nuslerp", "models": ["a", "b"], "parameters": {"flatten": "rows"}}
        ).settings()
    checkpoints(tmp_path)
    with pytest.raises(UsageError, match="nuslerp merges 2 models, found 3"):
        plan(recipe(tmp_path, "nuslerp", "abc", base=None)).raise_problems()
