"""DARE on draws chosen by hand, its rescaling against numpy, its statistics over many draws."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alliage.merging import dare_linear, dare_ties, plan, run
from alliage.merging.methods.dare import KeptMagnitude
from alliage.randomness import uniform
from tests.merging.test_odd_inputs import recipe, store, three

DELTAS = torch.tensor([[4.0, -2.0, 1.0, 8.0], [-1.0, -6.0, 3.0, 2.0]])
DRAWS = torch.tensor([[0.1, 0.5, 0.49, 0.9], [0.6, 0.2, 0.0, 0.3]])
# at density 0.5 stay: [4, ., 1, .] and [., -6, 3, 2]


def test_dropped_rescaled_and_added_by_hand():
    given = {"density": 0.5, "uniform": DRAWS}
    assert dare_linear(DELTAS, **given).tolist() == [8.0, -12.0, 8.0, 4.0]
    assert dare_linear(DELTAS, rescale="none", **given).tolist() == [4.0, -6.0, 4.0, 2.0]
    # sums of magnitudes: 15 of which 5 stay, 12 of which 11 stay
    l1 = dare_linear(DELTAS, rescale="l1", **given)
    expected = [12.0, -6 * 12 / 11, 3.0 + 3 * 12 / 11, 2 * 12 / 11]
    torch.testing.assert_close(l1, torch.tensor(expected), rtol=0, atol=1e-6)
    weighted = dare_linear(DELTAS, weight=torch.tensor([1.0, -0.5]), scale=2.0, **given)
    assert weighted.tolist() == [16.0, 12.0, -2.0, -4.0]


def test_each_model_has_its_density():
    draws = torch.tensor([[0.1, 0.3, 0.2, 0.9], [0.6, 0.2, 0.0, 0.8]])
    kept = dare_linear(DELTAS, density=torch.tensor([0.25, 0.75]), uniform=draws, rescale="none")
    assert kept.tolist() == [4.0 - 1.0, -6.0, 1.0 + 3.0, 0.0]


def test_signs_are_elected_among_what_stays_by_hand():
    draws = torch.tensor([[0.1, 0.2, 0.3, 0.9], [0.2, 0.6, 0.1, 0.8]])
    given = {"density": 0.5, "uniform": draws}
    # rescaled by two: [8, -4, 2, .] and [-2, ., 6, .]: votes 6, -4, 8, 0
    assert dare_ties(DELTAS, **given).tolist() == [8.0, -4.0, 4.0, 0.0]
    assert dare_ties(DELTAS, combine="sum", **given).tolist() == [8.0, -4.0, 8.0, 0.0]
    # votes of 1·8 - 5·2 < 0
    weight = torch.tensor([1.0, 5.0])
    weighted = dare_ties(DELTAS, weight=weight, **given)
    assert torch.equal(weighted, torch.tensor([-2.0, -4.0, 32 / 6, 0.0]))
    by_sum = dare_ties(DELTAS, weight=weight, vote="sum", combine="sum_by_count", **given)
    assert by_sum.tolist() == [8.0, -4.0, 16.0, 0.0]
    # 1 and -1 cancel: positive
    even = torch.tensor([[1.0], [-1.0]])
    assert dare_ties(even, uniform=torch.zeros(2, 1), rescale="none").tolist() == [1.0]


def test_everything_stays_at_density_one():
    for rescale in ("inverse", "l1", "none"):
        merged = dare_linear(DELTAS, density=1.0, rescale=rescale, uniform=DRAWS)
        assert merged.tolist() == [3.0, -8.0, 4.0, 10.0]


def test_rescaling_by_magnitude_has_nothing_to_divide_by_where_nothing_stays():
    nothing = torch.full((2, 4), 0.9)
    assert not dare_linear(DELTAS, density=0.5, rescale="l1", uniform=nothing).any()
    zeros = dare_linear(torch.zeros(2, 4), rescale="l1", uniform=DRAWS)
    assert torch.equal(zeros, torch.zeros(4))


def test_the_mean_over_many_draws_is_task_arithmetic():
    deltas = DELTAS[:, :2]
    total = sum(dare_linear(deltas, density=0.3, seed=seed) for seed in range(3000))
    # variance of one draw: d²(1 − K)/K, summed over the models
    error = (deltas.square().sum(0) * 0.7 / 0.3 / 3000).sqrt()
    assert ((total / 3000 - deltas.sum(0)).abs() < 4 * error).all()


@pytest.mark.parametrize("rescale", ["inverse", "none", "l1"])
def test_the_first_pass_is_numpys_sum_of_magnitudes(rescale):
    draw = torch.Generator().manual_seed(0)
    deltas = torch.randn(3, 9001, generator=draw) * torch.tensor([[1.0], [1e-12], [1e6]])
    draws = torch.rand(3, 9001, generator=draw)
    found = []
    for length in (4096, 8192, 9001):
        reduction = KeptMagnitude(3, 9001, density=[0.2, 0.5, 0.9], rescale=rescale)
        result = reduction.result()
        if rescale != "l1":
            assert result == {"factors": None}
            return
        assert result is None
        blocks = zip(torch.split(deltas, length, 1), torch.split(draws, length, 1), strict=True)
        for place, (block, drawn) in enumerate(blocks):
            reduction.update(block, place, drawn)
        found.append(reduction.result()["factors"])
    assert found[0] == found[1] == found[2]
    values, chances = deltas.double().abs().numpy(), draws.numpy()
    for row, density in enumerate((0.2, 0.5, 0.9)):
        kept = values[row][chances[row] < np.float32(density)].sum()
        expected = values[row].sum() / kept if kept > 1e-7 else 1.0
        assert found[0][row] == pytest.approx(expected, rel=1e-12)
    assert found[0][1] == 1.0  # too small a sum to divide by


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", ["inverse", "none", "l1"])
def test_streamed_it_is_the_whole_with_the_same_draws(tmp_path, method, rescale):
    base, a, b = three((3, 9001))
    for name, tensor in zip(("base", "a", "b"), (base, a, b), strict=True):
        store(tmp_path / name, {"layers.0.weight": tensor, "norm.weight": tensor[0, :5].clone()})
    parameters = {"density": 0.3, "rescale": rescale, "seed": 11}
    chosen = recipe(tmp_path, method, parameters=parameters)
    run(plan(chosen, memory=plan(chosen).least_memory), tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    function = {"dare_linear": dare_linear, "dare_ties": dare_ties}[method]
    for name, part in (("layers.0.weight", (...,)), ("norm.weight", (0, slice(5)))):
        deltas = torch.stack([a[part] - base[part], b[part] - base[part]])
        draws = [uniform(11, name, model, 0, deltas[0].numel()) for model in range(2)]
        drawn = torch.from_numpy(np.stack(draws)).reshape(deltas.shape)
        expected = base[part] + function(deltas, density=0.3, rescale=rescale, uniform=drawn)
        torch.testing.assert_close(out[name], expected, rtol=1e-6, atol=1e-6)
        assert abs(((out[name] == base[part]).float().mean()) - 0.7**2) < 0.02 or name[0] == "n"


def test_another_seed_is_another_merge(tmp_path):
    for name, tensor in zip(("base", "a", "b"), three((40, 40)), strict=True):
        store(tmp_path / name, {"layers.0.weight": tensor})
    files = []
    for number, seed in enumerate((0, 0, 1)):
        chosen = recipe(tmp_path, "dare_linear", parameters={"seed": seed})
        run(plan(chosen), tmp_path / str(number))
        files.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]
