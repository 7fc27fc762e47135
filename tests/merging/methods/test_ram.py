"""RAM and RAM+ by hand, against sets of positions in numpy, and streamed."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alliage.errors import UsageError
from alliage.merging import parse_recipe, plan, run
from alliage.merging.methods.ram import UniqueRescaling, ram, ram_plus
from tests.merging.methods.through_engine import assert_streamed_is_whole, checkpoints
from tests.merging.test_odd_inputs import recipe

# shared by all, by two, then one entry of the first alone and two of the second; last: unchanged
DELTAS = torch.tensor(
    [
        [3.0, 4.0, 8.0, 0.0, 0.0, 1e-6],
        [6.0, -2.0, 0.0, 1.0, 2.0, -1e-6],
        [-3.0, 0.0, 1e-6, 0.0, 1e-5, 0.0],
    ]
)


def test_averages_of_those_that_changed_by_hand():
    # (3 + 6 - 3)/3, (4 - 2)/2, then what one model changed by more than 2e-5
    assert ram(DELTAS, epsilon=2e-5).tolist() == [2.0, 1.0, 8.0, 1.0, 2.0, 0.0]
    # only -3 and 3 are no larger than 3
    assert ram(DELTAS, epsilon=3.0).tolist() == [6.0, 4.0, 8.0, 0.0, 0.0, 0.0]


def test_unique_changes_are_strengthened_by_hand():
    # the first has 2 shared and 1 of its own: ρ = 2, bounded by 1; the second 2 and 2: ρ = 1; the
    # third has none of its own. With α = 1 both are 1 + r.
    given = {"epsilon": 2e-5, "r": 0.25}
    assert ram_plus(DELTAS, alpha=1.0, **given).tolist() == [2.0, 1.0, 10.0, 1.25, 2.5, 0.0]
    # a bound of 3: 1 + 0.25·2 and 1 + 0.25·1
    assert ram_plus(DELTAS, alpha=3.0, **given).tolist() == [2.0, 1.0, 12.0, 1.25, 2.5, 0.0]
    assert ram_plus(DELTAS, r=0.0, epsilon=2e-5).tolist() == ram(DELTAS, epsilon=2e-5).tolist()


def test_without_unique_changes_the_ratio_is_its_bound():
    reduction = UniqueRescaling(3, 6, epsilon=2e-5, r=0.25, alpha=3.0, over="model")
    assert reduction.result() is None
    for place, block in enumerate(DELTAS.split(4, dim=1)):
        reduction.update(block, place)
    assert reduction.result() == {"factors": [1.5, 1.25, 1.75]}
    nothing = UniqueRescaling(2, 3, epsilon=0.0, r=0.25, alpha=3.0, over="model")
    nothing.update(torch.zeros(2, 3), 0)
    assert nothing.result() == {"factors": [1.0, 1.0]}


def reference(deltas, epsilon, r, alpha):
    """RAM+ by sets of positions, in float64."""
    changed = [{int(k) for k in np.flatnonzero(np.abs(row) > epsilon)} for row in deltas]
    merged = np.zeros(deltas.shape[1])
    for number, own in enumerate(changed):
        others = set().union(*(each for k, each in enumerate(changed) if k != number))
        alone, shared = own - others, own & others
        ratio = min(len(shared) / len(alone), alpha) if alone else 0.0
        for k in alone:
            merged[k] = deltas[number, k] * (1 + r * ratio)
        for k in shared:
            merged[k] += deltas[number, k] / sum(k in each for each in changed)
    return merged


@pytest.mark.parametrize("epsilon", [1e-5, 0.5, 1.5])
def test_it_is_sets_of_positions_in_numpy(epsilon):
    draw = np.random.default_rng(0)
    deltas = draw.standard_normal((4, 500)) * (draw.random((4, 500)) < 0.3)
    found = ram_plus(torch.from_numpy(deltas).float(), epsilon=epsilon, r=0.3, alpha=0.7)
    expected = reference(deltas.astype(np.float32).astype(np.float64), epsilon, 0.3, 0.7)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("method", ["ram", "ram_plus"])
def test_streamed_it_is_the_whole(tmp_path, method, coarse):
    # half of the entries are as in the base, or near it
    parameters = {
        "epsilon": 0.5 if coarse else 0.07,
        **({"over": "tensor"} if method == "ram_plus" else {}),
    }
    assert_streamed_is_whole(tmp_path, method, parameters, coarse=coarse)


def test_by_default_changes_are_counted_over_the_whole_model(tmp_path):
    models = checkpoints(tmp_path, "ab")
    parameters = {"epsilon": 0.07, "r": 0.3, "alpha": 2.0}
    run(plan(recipe(tmp_path, "ram_plus", parameters=parameters), threads=2), tmp_path / "out")
    base, a, b = (torch.cat([t.flatten() for t in tensors.values()]) for tensors in models)
    expected = base + ram_plus(torch.stack([a - base, b - base]), **parameters)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(torch.cat([found[name].flatten() for name in models[0]]), expected)


def test_one_count_has_one_threshold(tmp_path):
    checkpoints(tmp_path, "ab")
    rules = [{"filter": "norm", "value": 0.5}, {"value": 0.2}]
    (problem,) = plan(recipe(tmp_path, "ram_plus", parameters={"epsilon": rules})).problems
    assert problem.fix == "Give one value for the whole of it, or over: tensor."


@pytest.mark.parametrize("wrong", [{"epsilon": -1}, {"r": -0.1}, {"alpha": -1}, {"over": "row"}])
def test_what_is_out_of_range_is_refused(wrong):
    content = {"method": "ram_plus", "base": "b", "models": ["a"], "parameters": wrong}
    with pytest.raises(UsageError, match=next(iter(wrong))):
        parse_recipe(content).settings()
