"""NearSwap by hand, against its source's formula in float64, and streamed."""

import numpy as np
import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import parse_recipe, plan
from alliage.merging.methods.nearswap import nearswap
from tests.merging.methods.through_engine import assert_streamed_is_whole, checkpoints
from tests.merging.test_odd_inputs import recipe


def test_steps_of_at_most_t_by_hand():
    a, b = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.25, 3.0, -4.0, 1.0])
    # near enough to be taken over; half a step up; half a step down; nothing to do
    assert nearswap(torch.stack([a, b]), t=0.5).tolist() == [1.25, 1.5, 0.5, 1.0]
    assert nearswap(torch.stack([b, a]), t=0.5).tolist() == [1.0, 2.5, -3.5, 1.0]


def test_at_zero_the_first_model_stays_and_far_enough_it_is_the_other():
    pair = torch.stack([torch.linspace(-3, 3, 50), torch.linspace(4, -7, 50)])
    assert torch.equal(nearswap(pair, t=0.0), pair[0])
    assert torch.equal(nearswap(pair, t=20.0), pair[1])


@pytest.mark.parametrize("t", [1e-4, 0.1, 1.0])
def test_it_is_the_weighted_mean_of_its_source(t):
    a, b = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    weight = np.clip(t / np.abs(a.astype(np.float64) - b), 0, 1)
    found = nearswap(torch.from_numpy(np.stack([a, b])), t=t).numpy()
    np.testing.assert_allclose(found, weight * b + (1 - weight) * a, rtol=0, atol=5e-7)


@pytest.mark.parametrize("coarse", [False, True])
def test_streamed_it_is_the_whole(tmp_path, coarse):
    parameters = {"t": 0.5 if coarse else 0.1}
    assert_streamed_is_whole(tmp_path, "nearswap", parameters, base=False, coarse=coarse)


def test_it_takes_two_models_and_no_step_backwards(tmp_path):
    content = {"method": "nearswap", "models": ["a", "b"], "parameters": {"t": -0.1}}
    with pytest.raises(UsageError, match=r"must be in \[0, inf\)"):
        parse_recipe(content).settings()
    checkpoints(tmp_path, "a")
    problems = plan(recipe(tmp_path, "nearswap", ["a"], base=None)).problems
    assert "nearswap merges 2 models, found 1." in str(problems[0])
