"""Sign flips by hand, by counting, and streamed."""

import numpy as np
import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import parse_recipe, plan
from alliage.merging.methods.flip_signs import FlipThresholds, flip_signs
from alliage.randomness import uniform
from tests.merging.methods.through_engine import checkpoints, merged_everyhow
from tests.merging.test_odd_inputs import recipe

DELTA = torch.tensor([[4.0, -2.0, 1.0, -8.0]])


def test_flipped_by_hand():
    # half of four entries are the top: 4 and −8
    assert flip_signs(DELTA, density=0.5, probability=1).tolist() == [-4.0, -2.0, 1.0, 8.0]
    bottom = flip_signs(DELTA, density=0.5, probability=1, part="bottom")
    assert bottom.tolist() == [4.0, 2.0, -1.0, -8.0]
    assert flip_signs(DELTA, density=0.5, probability=0).tolist() == DELTA[0].tolist()
    # draws below ½ turn the first and the third, of the top only the first
    draws = torch.tensor([[0.4, 0.6, 0.1, 0.5]])
    turned = flip_signs(DELTA, density=0.5, probability=0.5, uniform=draws)
    assert turned.tolist() == [-4.0, -2.0, 1.0, -8.0]


def test_what_was_learned_is_scaled():
    assert flip_signs(DELTA, density=0.25, probability=1, scale=0.5).tolist() == [2, -1, 0.5, 4]


def test_of_equal_magnitudes_the_first_are_the_top():
    level = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    assert flip_signs(level, density=0.5, probability=1).tolist() == [-1.0, 1.0, 1.0, -1.0]


def test_all_and_none_are_the_top():
    assert flip_signs(DELTA, density=1.0, probability=1).tolist() == (-DELTA[0]).tolist()
    assert flip_signs(DELTA, density=0.0, probability=1).tolist() == DELTA[0].tolist()
    bottom = flip_signs(DELTA, density=0.0, probability=1, part="bottom")
    assert bottom.tolist() == (-DELTA[0]).tolist()


@pytest.mark.parametrize("part", ["top", "bottom"])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_as_many_are_turned_as_the_probability_says(part, probability):
    deltas = torch.randn(1, 50_000, generator=torch.Generator().manual_seed(0))
    found = flip_signs(deltas, density=0.3, probability=probability, part=part, seed=1)
    turned = (found == -deltas[0]).numpy()
    assert torch.equal(found.abs(), deltas[0].abs())
    order = np.argsort(-deltas[0].abs().numpy())
    top, rest = turned[order[:15_000]], turned[order[15_000:]]
    chosen, other = (top, rest) if part == "top" else (rest, top)
    error = np.sqrt(probability * (1 - probability) / len(chosen))
    assert abs(chosen.mean() - probability) < 5 * error
    assert not other.any()
    again = flip_signs(deltas, density=0.3, probability=probability, part=part, seed=1)
    assert torch.equal(found, again)
    assert not torch.equal(found, flip_signs(deltas, probability=probability, part=part, seed=2))


@pytest.mark.parametrize("trim", ["tensor", "module", "model"])
def test_what_is_one_vector(trim):
    assert FlipThresholds.scope(trim=trim, density=[0.1]) == trim


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("part", ["top", "bottom"])
def test_streamed_over_a_model(tmp_path, part, coarse):
    base, model = checkpoints(tmp_path, "a", coarse=coarse)
    parameters = {"density": 0.3, "probability": 0.6, "part": part, "seed": 3}
    found = merged_everyhow(tmp_path, "flip_signs", "a", base="base", parameters=parameters)
    deltas = {name: (model[name] - base[name]).flatten() for name in base}
    # Of equal magnitudes the first are the top, in the order of the output's tensors.
    made = plan(recipe(tmp_path, "flip_signs", "a", base="base"))
    names = [tensor.name for tensor in made.merged]
    whole = torch.cat([deltas[name] for name in names])
    top = np.zeros(len(whole), bool)
    top[np.argsort(-whole.abs().numpy(), kind="stable")[: int(0.3 * len(whole))]] = True
    parts = torch.from_numpy(top).split([len(deltas[name]) for name in names])
    chosen = dict(zip(names, parts, strict=True))
    for name, delta in deltas.items():
        draws = torch.from_numpy(uniform(3, name, 0, 0, len(delta)))
        turned = (chosen[name] if part == "top" else ~chosen[name]) & (draws < 0.6)
        expected = base[name].flatten() + torch.where(turned, -delta, delta)
        assert torch.equal(found[name].flatten(), expected)


@pytest.mark.parametrize(("name", "value"), [("probability", 1.5), ("part", "middle")])
def test_wrong_parameters_are_refused(name, value):
    content = {"method": "flip_signs", "base": "b", "models": ["a"]}
    with pytest.raises(UsageError, match=name):
        parse_recipe(content | {"parameters": {name: value}}).settings()
