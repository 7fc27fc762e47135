"""RegMean worked out by hand, against least squares on the inputs themselves, and streamed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.errors import UsageError
from alliage.merging import parse_recipe, regmean
from tests.merging.methods.through_engine import SHAPES, checkpoints, merged_everyhow
from tests.merging.statistics import gram, save


def test_inputs_apart_from_each_other_keep_each_models_columns():
    weights = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    first, second = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 5.0]])
    # the first model sees the first input alone, the second one the second
    found = regmean(weights, grams=torch.stack([first, second]))
    assert found.tolist() == [[1.0, 4.0]]


def test_equations_worked_out_by_hand():
    # one output, inputs that go together: G₁ = [[2, 1], [1, 2]], G₂ = [[1, 0], [0, 1]], α = 1
    weights = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    grams = torch.tensor([[[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
    # G₁w₁ + G₂w₂ = (2, 1) + (0, 1) = (2, 2); [[3, 1], [1, 3]] w = (2, 2): w = (1/2, 1/2)
    torch.testing.assert_close(regmean(weights, grams=grams, alpha=1.0), torch.full((1, 2), 0.5))
    # α = 0: by input, (2·1 + 1·0)/3 and (2·0 + 1·1)/3
    found = regmean(weights, grams=grams, alpha=0.0)
    torch.testing.assert_close(found, torch.tensor([[2 / 3, 1 / 3]]))
    # α = ½: G̃₁w₁ = (2, ½), G̃₂w₂ = (0, 1); [[3, ½], [½, 3]] w = (2, 3/2): w = (21, 14)/35
    found = regmean(weights, grams=grams, alpha=0.5)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.4]]))
    # w₂ = 3, α = 1: (2, 1) + 3·(0, 1) = (2, 4); [[5, 1], [1, 5]] w = (2, 4): w = (1/4, 3/4)
    found = regmean(weights, grams=grams, alpha=1.0, weight=[1.0, 3.0])
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75]]))


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_it_is_least_squares_on_the_stacked_inputs(models, inputs, outputs, seed):
    """min Σ wᵢ E‖Xᵢ(W − Wᵢ)ᵀ‖², solved by numpy on the inputs; few examples leave W open."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 2 * inputs + 1, models)
    given_inputs = [random.standard_normal((count, inputs)).astype(np.float32) for count in counts]
    weights = random.standard_normal((models, outputs, inputs)).astype(np.float32)
    shares = random.uniform(0.5, 2, models)
    grams = [x.astype(np.float64).T @ x / len(x) for x in given_inputs]
    found = regmean(
        torch.from_numpy(weights), grams=torch.from_numpy(np.stack(grams)).float(),
        weight=shares.tolist(), alpha=1.0,
    ).double().numpy()  # fmt: skip
    rows = np.concatenate(
        [x * np.sqrt(s / len(x)) for x, s in zip(given_inputs, shares, strict=True)]
    )
    answers = np.concatenate(
        [
            np.sqrt(s / len(x)) * x.astype(np.float64) @ w.T
            for x, w, s in zip(given_inputs, weights, shares, strict=True)
        ]
    )
    best = np.linalg.lstsq(rows.astype(np.float64), answers, rcond=None)
    reached = np.linalg.norm(rows @ found.T - answers)
    least = np.linalg.norm(rows @ best[0] - answers)
    assert reached <= least + 1e-4 * np.linalg.norm(answers)
    values = best[3]
    if best[2] == inputs and values[-1] > 0.1 * values[0]:  # one solution, and well known
        np.testing.assert_allclose(found, best[0].T, rtol=1e-4, atol=1e-4)


def test_directions_that_no_input_has_keep_the_average():
    weights = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    direction = torch.tensor([1.0, 1.0, 0.0, 0.0])
    grams = torch.outer(direction, direction).expand(2, 4, 4)
    found = regmean(weights, grams=grams, alpha=1.0)
    torch.testing.assert_close(found, weights.mean(0))
    dead = torch.diag(torch.tensor([1.0, 2.0, 0.0, 3.0]))
    found = regmean(weights, grams=torch.stack([dead, 2 * dead]))
    torch.testing.assert_close(found[:, 2], weights[:, :, 2].mean(0))
    torch.testing.assert_close(found[:, 0], (weights[0, :, 0] + 2 * weights[1, :, 0]) / 3)
    assert torch.equal(regmean(weights, grams=torch.zeros(2, 4, 4)), weights.mean(0))


def test_what_is_no_linear_layer_is_averaged():
    bias = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert regmean(bias, grams=None).tolist() == [2.0, 4.0]
    assert regmean(bias, grams=None, weight=[3.0, 1.0]).tolist() == [1.5, 3.0]


def known(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return gram(shape[1], torch.Generator().manual_seed(seed))


def test_streamed_it_is_the_whole(tmp_path):
    models = checkpoints(tmp_path, base=False)[1:]
    layer = "layers.0.weight"
    grams = [known(SHAPES[layer], seed) for seed in range(3)]
    for name, each in zip("abc", grams, strict=True):
        save(tmp_path / name, "regmean", {layer: each, f"{layer}.input_mean": torch.ones(100)})
    found = merged_everyhow(tmp_path, "regmean", base=None, parameters={"alpha": 0.8})
    for name, merged in found.items():
        stacked = torch.stack([model[name] for model in models])
        given = torch.stack(grams) if name == layer else None
        expected = regmean(stacked, grams=given, alpha=0.8)
        torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-7)
    mean = torch.stack([model[layer] for model in models]).mean(0)
    assert (found[layer] - mean).abs().max() > 1e-2  # else nothing would have been tested


def test_weights_that_are_stored_by_inputs_are_turned(tmp_path):
    """GPT-2's layers are stored as [in, out]; a square one does not tell."""
    models = checkpoints(tmp_path, "ab", base=False)[1:]
    layer = "layers.0.weight"  # [150, 100]: 150 inputs
    grams = [known((100, 150), seed) for seed in range(2)]
    for name, each in zip("ab", grams, strict=True):
        save(tmp_path / name, "regmean", {layer: each}, transposed=[layer])
    found = merged_everyhow(tmp_path, "regmean", "ab", base=None)
    stacked = torch.stack([model[layer].T for model in models])
    expected = regmean(stacked, grams=torch.stack(grams)).T
    torch.testing.assert_close(found[layer], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"alpha": 1.1}, r"parameters\.alpha: must be in \[0, 1\]"),
        ({"weight": -1.0}, r"parameters\.weight: must be in \[0, inf\)"),
        ({"aplha": 0.5}, r"no parameter 'aplha'. Did you mean 'alpha'\?"),
    ],
)
def test_what_it_refuses(parameters, said):
    with pytest.raises(UsageError, match=said):
        parse_recipe(
            {"method": "regmean", "models": ["a", "b"], "parameters": parameters}
        ).settings()
