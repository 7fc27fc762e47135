"""SLERP on angles worked out by hand, against scipy, and streamed against the whole."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.spatial import geometric_slerp

from alliage.errors import UsageError
from alliage.merging import parse_recipe, plan, run, slerp
from alliage.merging.methods.slerp import Cosine
from tests.merging import tensors
from tests.merging.test_odd_inputs import recipe, store, three

close = partial(tensors.close, rtol=0, atol=1e-7)


def test_a_right_angle_worked_out_by_hand():
    axes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    half = math.sqrt(0.5)
    close(slerp(axes), [half, half])
    close(slerp(axes, t=1 / 3), [math.sqrt(3) / 2, 0.5])  # thirty degrees
    assert slerp(axes, t=0.0).tolist() == [1.0, 0.0]
    close(slerp(axes, t=1.0), [0.0, 1.0])
    # the vectors are combined as they are: sin 45° · (2, 0) + sin 45° · (0, 6)
    close(slerp(axes * torch.tensor([[2.0], [6.0]])), [2 * half, 6 * half], atol=1e-6)


def test_an_obtuse_angle_worked_out_by_hand():
    # 120°: sin(60°)/sin(120°) = 1 on both sides, so the sum; 60° from either
    pair = torch.tensor([[1.0, 0.0], [-0.5, math.sqrt(3) / 2]])
    close(slerp(pair), [0.5, math.sqrt(3) / 2])


@given(st.integers(2, 40), st.floats(0, 1), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_on_the_unit_sphere_it_is_scipys(size, t, seed):
    pair = np.random.default_rng(seed).standard_normal((2, size))
    pair /= np.linalg.norm(pair, axis=1, keepdims=True)
    if abs(pair[0] @ pair[1]) > 0.99:
        return
    expected = geometric_slerp(pair[0], pair[1], t)
    found = slerp(torch.from_numpy(pair).float(), t=t)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("cosine", "straight"), [(0.9996, True), (0.9994, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_nearly_parallel_tensors_are_interpolated_linearly(cosine, straight, sign):
    cosine *= sign
    pair = torch.tensor([[3.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]], dtype=torch.float64)
    angle, t = math.acos(cosine), 0.25
    line = 0.75 * pair[0] + 0.25 * pair[1]
    arc = (math.sin(0.75 * angle) * pair[0] + math.sin(0.25 * angle) * pair[1]) / math.sin(angle)
    assert (line - arc).abs().max() > 1e-5  # else nothing would be told apart
    expected = (line if straight else arc).float()  # up to 43: the shares have large factors
    torch.testing.assert_close(slerp(pair.float(), t=t), expected, rtol=2e-7, atol=2e-6)


def test_equal_opposite_and_zero_tensors():
    ones = torch.ones(2, 5)
    assert torch.equal(slerp(ones, t=0.3), ones[0])
    opposite = torch.stack([ones[0], -ones[0]])
    close(slerp(opposite, t=0.3), 0.4 * ones[0])
    zero = torch.stack([ones[0], 0 * ones[0]])
    close(slerp(zero, t=0.5), math.sqrt(0.5) * ones[0])  # no direction: a right angle
    assert not slerp(0 * ones).any()
    assert slerp(torch.empty(2, 0)).shape == (0,)


@given(st.integers(1, 30_000), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_first_pass_finds_one_cosine_wherever_blocks_end(size, step, seed):
    pair = torch.randn(2, size, generator=torch.Generator().manual_seed(seed))
    found = []
    for length in (4096 * step, 4096, size):
        reduction = Cosine(2, size)
        blocks = list(enumerate(torch.split(pair, length, dim=1)))
        for place, block in reversed(blocks) if length == 4096 else blocks:
            reduction.update(block, place)
        found.append(reduction.result()["cosine"])
    assert found[0] == found[1] == found[2]
    one, other = pair.double().numpy()
    expected = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    assert found[0] == pytest.approx(expected, abs=1e-12)


def test_streamed_it_is_the_whole(tmp_path):
    tensors = three((3, 9001))
    for name, tensor in zip(("a", "b"), tensors, strict=False):
        store(tmp_path / name, {"layers.0.weight": tensor, "norm.weight": tensor[0] * 0})
    chosen = recipe(tmp_path, "slerp", base=None, parameters={"t": 0.3})
    record = run(plan(chosen, memory=plan(chosen).least_memory), tmp_path / "out")
    assert record.passes == 2
    out = load_file(tmp_path / "out" / "model.safetensors")
    whole = slerp(torch.stack(tensors[:2]), t=0.3)
    torch.testing.assert_close(out["layers.0.weight"], whole, rtol=0, atol=1e-6)
    assert not out["norm.weight"].any()


def test_each_tensor_has_its_angle_and_may_have_its_t(tmp_path):
    pair = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    for number, name in enumerate("ab"):
        content = {f"layers.{k}.weight": pair[number].clone() for k in range(3)}
        store(tmp_path / name, content | {"norm.weight": pair[0].clone()})
    chosen = recipe(tmp_path, "slerp", base=None, parameters={"t": [0, 1]})
    run(plan(chosen), tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    half = math.sqrt(0.5)
    for layer, wanted in enumerate(([1.0, 0.0], [half, half], [0.0, 1.0])):
        close(out[f"layers.{layer}.weight"], wanted)
    assert out["norm.weight"].tolist() == [1.0, 0.0]


def test_two_models_and_t_between_them(tmp_path):
    for name, tensor in zip("abc", three(), strict=True):
        store(tmp_path / name, {"layers.0.weight": tensor})
    with pytest.raises(UsageError, match="slerp merges 2 models, found 3"):
        plan(recipe(tmp_path, "slerp", "abc", base=None)).raise_problems()
    for t in (-0.1, 1.1):
        with pytest.raises(UsageError, match=r"parameters\.t: must be in \[0, 1\]"):
            parse_recipe(
                {"method": "slerp", "models": ["a", "b"], "parameters": {"t": t}}
            ).settings()
