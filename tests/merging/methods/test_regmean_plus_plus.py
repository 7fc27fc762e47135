"""RegMean++ is RegMean over other inputs, which hold for one merge alone."""

import pytest
import torch

from alliage.errors import AlliageError, UsageError
from alliage.merging import plan, regmean, regmean_plus_plus
from tests.merging.methods.through_engine import SHAPES, checkpoints, merged_everyhow
from tests.merging.statistics import gram, save
from tests.merging.test_odd_inputs import recipe

LAYER = "layers.0.weight"


def test_worked_out_by_hand():
    # as in RegMean: α = ½, G̃₁w₁ = (2, ½), G̃₂w₂ = (0, 1); [[3, ½], [½, 3]] w = (2, 3/2)
    weights = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    grams = torch.tensor([[[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
    found = regmean_plus_plus(weights, grams=grams, alpha=0.5)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.4]]))
    assert regmean_plus_plus(weights, grams=None).tolist() == [[0.5, 0.5]]


@pytest.fixture
def home(tmp_path):
    """Models a, b and c, of which a and b have inputs for their merge with α = 0.8."""
    checkpoints(tmp_path, base=False)
    for seed, name in enumerate("ab"):
        save(
            tmp_path / name,
            "regmean_plus_plus",
            {LAYER: gram(SHAPES[LAYER][1], torch.Generator().manual_seed(seed))},
            everyone=[tmp_path / "a", tmp_path / "b"],
            parameters={"alpha": 0.8},
        )
    return tmp_path


def test_streamed_it_is_the_whole(tmp_path, home):
    models = checkpoints(tmp_path / "again", base=False)[1:3]
    found = merged_everyhow(home, "regmean_plus_plus", "ab", base=None, parameters={"alpha": 0.8})
    grams = [gram(100, torch.Generator().manual_seed(seed)) for seed in range(2)]
    stacked = torch.stack([model[LAYER] for model in models])
    expected = regmean(stacked, grams=torch.stack(grams), alpha=0.8)
    torch.testing.assert_close(found[LAYER], expected, rtol=1e-6, atol=1e-7)


def test_another_alpha_is_refused(home):
    chosen = recipe(home, "regmean_plus_plus", "ab", base=None)
    with pytest.raises(AlliageError, match=r"alpha of .*: is 0\.9, but .* holds for 0\.8"):
        plan(chosen).raise_problems()


def test_another_merge_is_refused(home):
    chosen = recipe(home, "regmean_plus_plus", "a", base=None, parameters={"alpha": 0.8})
    with pytest.raises(UsageError, match="collected for a merge of 2 models, not of these"):
        plan(chosen).raise_problems()
    turned = recipe(home, "regmean_plus_plus", "ba", base=None, parameters={"alpha": 0.8})
    plan(turned).raise_problems()  # the order is nobody's concern
