"""Dialects as parameters: each is allowed by its method, and means what it says, by hand."""

import pytest
import torch

from alliage.merging import dare_ties, describe, get_method, parse_recipe, ties
from alliage.merging.recipe.dialects import _PRESETS, DIALECTS, preset


@pytest.mark.parametrize(("dialect", "method"), _PRESETS)
def test_presets_are_what_their_methods_allow_and_not_only_their_defaults(dialect, method):
    assert dialect in DIALECTS
    declared, values = describe(method).parameters, _PRESETS[dialect, method]
    assert [declared[name].check(value) for name, value in values.items()] == [""] * len(values)
    assert any(declared[name].default != value for name, value in values.items())


def test_the_paper_is_every_methods_own_default():
    for method in ("ties", "task_arithmetic", "dare_ties", "average"):
        assert preset("paper", method) == {}


def test_a_recipes_own_parameters_go_before_its_dialects():
    content = {"method": "ties", "base": "b", "models": ["a"], "dialect": "fusion_bench"}
    _, arguments = parse_recipe(content).settings()
    assert (arguments["combine"], arguments["scale"]) == ("sum", 0.3)
    _, arguments = parse_recipe(content | {"parameters": {"scale": 2}}).settings()
    assert (arguments["combine"], arguments["scale"]) == ("sum", 2)
    assert parse_recipe(content).arguments_for("w", 0.5)["density"] == [0.2]


DELTAS = torch.tensor([[3.0, -1.0, 2.0, 1.0], [-3.0, -2.0, 2.0, 1.0], [1.0, 4.0, -2.0, -2.0]])
# sums 1, 1, 2, 0; counts of signs 1, −1, 1, 1

BY_HAND = {
    # all entries, cancelled votes are positive, means: (3+1)/2, 4, 2, 1
    ("mergekit", "ties"): [2.0, 4.0, 2.0, 1.0],
    # ⌊4·0.2⌋ = 0 entries stay
    ("peft", "ties"): [0.0, 0.0, 0.0, 0.0],
    # the 4th smallest of four stays: 3, ., ., . and −3, ., ., . and ., 4, ., .; the first cancels,
    # the only other vote is positive; sums times 0.3
    ("fusion_bench", "ties"): [0.9, 1.2, 0.0, 0.0],
    # all, by the count of signs, means: (3+1)/2, −(1+2)/2, 2, 1
    ("sd_mecha", "ties"): [2.0, -1.5, 2.0, 1.0],
    ("mergekit", "task_arithmetic"): [1.0, 1.0, 2.0, 0.0],
    ("peft", "task_arithmetic"): [1.0, 1.0, 2.0, 0.0],
    ("sd_mecha", "task_arithmetic"): [1.0, 1.0, 2.0, 0.0],
    ("fusion_bench", "task_arithmetic"): [0.3, 0.3, 0.6, 0.0],
    ("mergekit", "dare_linear"): [1.0, 1.0, 2.0, 0.0],
    ("mergekit", "dare_ties"): [4.0, 4.0, 4.0, 2.0],
    # nothing is dropped
    ("mergekit", "della_linear"): [1.0, 1.0, 2.0, 0.0],
    ("mergekit", "della"): [2.0, 4.0, 2.0, 1.0],
    ("mergekit", "breadcrumbs"): [1.0, 1.0, 2.0, 0.0],
    ("mergekit", "breadcrumbs_ties"): [4.0, 4.0, 4.0, 2.0],
    # all is selected; squares 15, 18, 25 weigh what agrees: (3·15 + 1·25)/40
    ("mergekit", "sce"): [1.75, 4.0, 2.0, 1.0],
    # all is shared: the mean
    ("mergekit", "ram_plus"): [1 / 3, 1 / 3, 2 / 3, 0.0],
}


@pytest.mark.parametrize(("dialect", "method"), BY_HAND)
def test_by_hand(dialect, method):
    function = get_method(method)
    found = function(DELTAS, **preset(dialect, method))
    torch.testing.assert_close(found, torch.tensor(BY_HAND[dialect, method]), rtol=1e-6, atol=0)


def test_peft_keeps_exactly_the_share_and_weighs_by_count():
    # half stays, of equal ones the first: [3, ., 2, .], [−3, −2, ., .], [., 4, −2, .]
    given = preset("peft", "ties") | {"density": 0.5}
    found = ties(DELTAS, weight=torch.tensor([2.0, 1.0, 0.5]), **given)
    # sums 0 (positive), 2, 0 (positive), 0: 2·3/1, 0.5·4/1, 2·2/1, 0
    assert found.tolist() == [6.0, 2.0, 4.0, 0.0]
    # all stays of dare: votes 1, 1, 2, 0
    stays = preset("peft", "dare_ties") | {"density": 1.0}
    assert dare_ties(DELTAS, **stays).tolist() == [2.0, 4.0, 2.0, 1.0]


def test_mergekit_keeps_one_entry_where_the_share_is_none():
    given = preset("mergekit", "ties") | {"density": 0.1}
    # [3, ., ., .], [−3, ., ., .], [., 4, ., .]
    assert ties(DELTAS, **given).tolist() == [3.0, 4.0, 0.0, 0.0]
