"""Methods inside methods: whose parameters, how many models, which draws."""

import pytest
import torch

from alliage.merging import describe, list_methods, parse_recipe
from alliage.merging.rules import by_rule, ruled, wrong


def settings(**changes):
    return parse_recipe({"method": "knots", "models": ["a", "b"], **changes}).settings()


def test_a_rule_brings_its_parameters():
    method, arguments = settings()
    assert arguments["rule"] == "ties"
    assert arguments["density"] == [0.2, 0.2]
    assert arguments["trim"] == "model"  # all modules are one vector
    method, arguments = settings(parameters={"rule": "slerp", "t": 0.3})
    assert arguments["t"] == 0.3
    assert method.models == 2
    assert "density" not in method.parameters
    assert settings(parameters={"rule": "dare_ties"})[0].random


def test_methods_without_a_rule_stay_as_they_are():
    ties = describe("ties")
    assert ruled(ties, {"rule": "average"}) is ties
    knots = describe("knots")
    assert ruled(knots, {"rule": "tise"}) is knots  # reported by the recipe's own check


def test_a_dialect_is_also_its_rules():
    _, arguments = settings(dialect="peft")
    assert (arguments["kept"], arguments["combine"]) == ("count", "sum_by_count")
    _, arguments = settings(dialect="peft", parameters={"kept": "kth"})
    assert arguments["kept"] == "kth"
    content = {"method": "factor_average", "dialect": "peft", "models": ["a"]}
    _, arguments = parse_recipe(content).settings()
    assert arguments == {
        "rule": "task_arithmetic", "root": True, "weight": [1.0], "scale": 1.0,
    }  # fmt: skip
    assert parse_recipe(content).arguments_for("layers.0.w", 0.0) == arguments


def allowed():
    declared = describe("core_space").parameters["rule"]
    return [name for name in list_methods() if not wrong(declared, name)]


def test_rules_are_methods_of_blocks_and_tensors_that_need_no_data():
    for name in list_methods():
        method = describe(name)
        fits = method.unit != "factors" and method.statistics is None and method.masks is None
        assert (name in allowed()) == fits


@pytest.mark.parametrize("rule", allowed())
def test_every_rule_merges_whole_matrices(rule):
    method = describe(rule)
    tensors = torch.randn(method.models or 3, 6, 9, generator=torch.Generator().manual_seed(0))
    before = tensors.clone()
    merged = by_rule(rule, tensors, {})
    assert merged.shape == (6, 9)
    assert merged.isfinite().all()
    assert torch.equal(tensors, before)
