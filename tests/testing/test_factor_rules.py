"""The rules for methods on factors find methods that break them."""

import math
from dataclasses import replace
from typing import Annotated

import pytest
import torch

from alliage.merging import describe, lora_concat
from alliage.merging.signature import Factor, In, declared
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


def deaf_to_weights(B, A, **_):
    return lora_concat(B, A)


def nothing_at_an_end(B, A, rank=None, **_):
    return (B[0] * math.nan if rank is not None else B[0]), A[0]


def scaled(B, A, *, scale: Annotated[float, In(-math.inf), Factor()] = 1.0):
    """Scale the first."""
    return scale * B[0], A[0]


def scaled_twice(B, A, scale=1.0):
    return scale * B[0], scale * A[0]


RIGHT = {
    "copies_give_the_update": replace(describe("factor_average"), identical=True),
    "factors_multiply_the_result": replace(
        describe("lora_svd"), function=scaled, parameters=declared(scaled, tensors=2, passes=False)
    ),
}


@pytest.mark.parametrize(
    ("rule", "function"),
    [
        ("one_adapter_gives_its_update", ones),
        ("zero_updates_stay_zero", ones),
        ("adapters_may_be_permuted", the_first),
        ("weights_count", deaf_to_weights),
        ("copies_give_the_update", lora_concat),
        ("only_the_product_counts", mean_of_factors),
        ("updates_scale", ones),
        ("factors_multiply_the_result", scaled_twice),
        ("ends_of_ranges", nothing_at_an_end),
        ("rank_is_as_declared", lambda B, A, **_: lora_concat(B, A)),  # lora_svd's is less
        ("factors_stay_untouched", changes_its_inputs),
    ],
)
def test_what_breaks_a_rule_is_found(rule, function):
    right = RIGHT.get(rule, describe("lora_svd"))
    neutral = {"neutral": {}} if rule == "one_adapter_gives_its_update" else {}
    with pytest.raises(AssertionError):
        getattr(factor_rules, rule)(replace(right, function=function), **neutral)
    getattr(factor_rules, rule)(right, **neutral)


def test_every_rule_is_shown_to_find_something():
    shown = {rule for rule, _ in test_what_breaks_a_rule_is_found.pytestmark[0].args[1]}
    rules = {rule.__name__ for rule in factor_rules.ALL} | {"one_adapter_gives_its_update"}
    assert shown == rules


def test_what_is_declared_not_to_scale_need_not():
    said = replace(describe("lora_svd"), function=ones, homogeneous=False)
    factor_rules.updates_scale(said)
