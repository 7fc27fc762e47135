"""Fisher merging worked out by hand, as a minimum, and streamed against the whole."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.errors import UsageError
from alliage.merging import fisher, parse_recipe, plan
from alliage.merging.methods.fisher import FisherNorms
from tests.merging.methods.through_engine import checkpoints, merged_everyhow
from tests.merging.statistics import save
from tests.merging.test_odd_inputs import recipe


def test_an_entry_goes_to_the_model_whose_answers_depend_on_it():
    weights = torch.tensor([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]])
    information = torch.tensor([[1.0, 3.0, 0.0], [3.0, 1.0, 0.0]])
    # (1·1 + 3·3)/4, (3·1 + 1·3)/4, and the average where nobody knows anything
    assert fisher(weights, fisher=information).tolist() == [2.5, 1.5, 2.0]


def test_shares_multiply_the_information():
    weights, information = torch.tensor([[1.0], [5.0]]), torch.tensor([[1.0], [1.0]])
    # (3·1·1 + 1·1·5)/(3 + 1)
    assert fisher(weights, fisher=information, weight=[3.0, 1.0]).tolist() == [2.0]
    assert fisher(weights, fisher=information, weight=[0.0, 1.0]).tolist() == [5.0]


def test_the_floor_is_the_least_information():
    weights, information = torch.tensor([[0.0], [4.0]]), torch.tensor([[0.0], [1.5]])
    # (0.5·0 + 1.5·4)/(0.5 + 1.5)
    assert fisher(weights, fisher=information, floor=0.5).tolist() == [3.0]
    assert fisher(weights, fisher=information, floor=2.0).tolist() == [2.0]


def test_normalised_each_model_has_information_of_norm_one():
    weights = torch.tensor([[0.0, 0.0], [9.0, 9.0]])
    information = torch.tensor([[30.0, 40.0], [0.8, 0.6]])
    # norms 50 and 1: shares 0.6 against 0.8, and 0.8 against 0.6
    found = fisher(weights, fisher=information, normalize=True)
    torch.testing.assert_close(found, torch.tensor([9 * 0.8 / 1.4, 9 * 0.6 / 1.4]))
    # a model without information has the norm 0, and is not divided by it
    nothing = fisher(weights, fisher=information * torch.tensor([[0.0], [1.0]]), normalize=True)
    torch.testing.assert_close(nothing, weights[1], rtol=1e-5, atol=0)


def test_the_floor_is_divided_by_the_norms_too():
    # norms 5 and 1: where nobody knows anything, floors count 1/5 and 1, and give 9·1 / 1.2
    weights = torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    information = torch.tensor([[3.0, 4.0, 0.0], [0.8, 0.6, 0.0]])
    assert fisher(weights, fisher=information, normalize=True)[2].item() == pytest.approx(7.5)
    assert fisher(weights, fisher=information)[2].item() == pytest.approx(4.5)


@given(st.integers(1, 5), st.integers(1, 30), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_it_minimises_the_distance_that_the_information_measures(models, size, normalize, seed):
    """Σ wᵢF̂ᵢ(θ − θᵢ)² is least where its gradient is zero: one linear equation for each entry."""
    random = np.random.default_rng(seed)
    weights = random.standard_normal((models, size)).astype(np.float32)
    information = random.exponential(1e-4, (models, size)).astype(np.float32)
    shares = random.uniform(0.1, 2, models)
    found = fisher(
        torch.from_numpy(weights), fisher=torch.from_numpy(information), weight=shares.tolist(),
        normalize=normalize,
    )  # fmt: skip
    metric = np.diag(shares) @ np.maximum(information, 1e-6).astype(np.float64)
    if normalize:
        metric /= np.linalg.norm(information.astype(np.float64), axis=1, keepdims=True)
    for entry in range(size):
        root = np.sqrt(metric[:, entry : entry + 1])
        expected = np.linalg.lstsq(root, root[:, 0] * weights[:, entry], rcond=None)[0]
        np.testing.assert_allclose(found[entry].item(), expected[0], rtol=2e-6, atol=1e-7)


def test_the_norms_are_the_same_wherever_blocks_end():
    information = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0))
    found = []
    for length in (4096, 8192, 20_000):
        reduction = FisherNorms(2, 20_000, normalize=True)
        assert reduction.result() is None
        blocks = list(enumerate(torch.split(information, length, dim=1)))
        for place, block in reversed(blocks):
            reduction.update(block, place, fisher=block)
        found.append(reduction.result()["norms"])
    assert found[0] == found[1] == found[2]
    assert found[0] == pytest.approx(information.double().norm(dim=1).tolist(), rel=1e-12)
    assert FisherNorms(2, 9, normalize=False).result() == {"norms": None}


@pytest.mark.parametrize("normalize", [False, True])
def test_streamed_it_is_the_whole(tmp_path, normalize):
    models = checkpoints(tmp_path, base=False)[1:]
    random = torch.Generator().manual_seed(1)
    known = []
    for number, name in enumerate("abc"):
        known.append(
            {
                key: torch.rand(tensor.shape, generator=random).square() * 10.0**-number
                for key, tensor in models[number].items()
                if key != "norm.weight"
            }
        )
        save(tmp_path / name, "fisher", known[-1])
    chosen = {"normalize": normalize}
    found = merged_everyhow(tmp_path, "fisher", base=None, parameters=chosen)
    norms = [
        math.sqrt(sum(float(t.double().square().sum()) for t in each.values())) for each in known
    ]
    for name, merged in found.items():
        zeros = torch.zeros_like(merged)
        expected = fisher(
            torch.stack([model[name] for model in models]),
            fisher=torch.stack([each.get(name, zeros) for each in known]),
            normalize=normalize,
            norms=norms,
        )
        torch.testing.assert_close(merged, expected, rtol=1e-6, atol=0)
    if not normalize:
        mean = torch.stack([model["norm.weight"] for model in models]).mean(0)
        torch.testing.assert_close(found["norm.weight"], mean, rtol=1e-6, atol=1e-7)
    notes = plan(recipe(tmp_path, "fisher", "abc", base=None)).notes
    assert any("1 tensors without Fisher information" in note for note in notes)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"floor": 0}, r"parameters\.floor: must be in \(0, inf\)"),
        ({"weight": -1.0}, r"parameters\.weight: must be in \[0, inf\)"),
        ({"weight": 0}, "all weights are zero"),
        ({"normalise": True}, r"no parameter 'normalise'. Did you mean 'normalize'\?"),
    ],
)
def test_what_it_refuses(parameters, said):
    with pytest.raises(UsageError, match=said):
        parse_recipe(
            {"method": "fisher", "models": ["a", "b"], "parameters": parameters}
        ).settings()
