"""The rules for methods on factors find methods that break them."""

from dataclasses import replace

import pytest
import torch

from alliage.merging import describe, lora_concat
from alliage.testing import factor_rules


def mean_of_factors(B, A, **_):
    return sum(B) / len(B), sum(A) / len(A)


def ones(B, A, **_):
    return torch.ones(len(B[0]), 1), torch.ones(1, A[0].shape[1])


def the_first(B, A, **_):
    return B[0].clone(), A[0].clone()


def changes_its_inputs(B, A, **_):
    B[0] += 1
    return B[0], A[0]


@pytest.mark.parametrize(
    ("rule", "function"),
    [
        ("one_adapter_gives_its_update", ones),
        ("zero_updates_stay_zero", ones),
        ("adapters_may_be_permuted", the_first),
        ("only_the_product_counts", mean_of_factors),
        ("updates_scale", ones),
        ("rank_is_as_declared", lambda B, A, **_: lora_concat(B, A)),  # lora_svd's is less
        ("factors_stay_untouched", changes_its_inputs),
    ],
)
def test_what_breaks_a_rule_is_found(rule, function):
    broken = replace(describe("lora_svd"), function=function)
    neutral = {"neutral": {}} if rule == "one_adapter_gives_its_update" else {}
    with pytest.raises(AssertionError):
        getattr(factor_rules, rule)(broken, **neutral)
    getattr(factor_rules, rule)(describe("lora_svd"), **neutral)


def test_every_rule_is_shown_to_find_something():
    shown = {rule for rule, _ in test_what_breaks_a_rule_is_found.pytestmark[0].args[1]}
    rules = {rule.__name__ for rule in factor_rules.ALL} | {"one_adapter_gives_its_update"}
    assert shown == rules
