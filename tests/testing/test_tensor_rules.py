"""The rules for methods of blocks and tensors find methods that break them."""

import math
from dataclasses import replace

import pytest
import torch

from alliage.merging import describe
from alliage.testing import tensor_rules


class Never:
    """A first pass without an end."""

    reads = ()

    def __init__(self, models, numel):
        pass

    def update(self, tensors, place):
        pass

    def result(self):
        return None


class Once:
    """A first pass that looks once."""

    reads = ()
    declared = 1

    def __init__(self, models, numel):
        self._seen = False

    @classmethod
    def least_passes(cls, **_):
        return cls.declared

    def update(self, tensors, place):
        self._seen = True

    def result(self):
        return {} if self._seen else None


class SaysTwice(Once):
    declared = 2


class SaysNever(Once):
    declared = 0


def half(deltas, **_):
    return deltas.mean(dim=0) / 2


def with_an_offset(deltas, **_):
    return deltas.mean(dim=0) + 1


def the_first(deltas, **_):
    return deltas[0].clone()


def another_models_weight(deltas, weight=torch.ones(4), **_):  # noqa: B008
    return (deltas * weight.sort().values.reshape(-1, *[1] * (deltas.ndim - 1))).sum(dim=0)


def deaf_to_weights(deltas, **_):
    return deltas.mean(dim=0)


def with_a_threshold(deltas, **_):
    return torch.where(deltas.abs() > 1e-4, deltas, 0).mean(dim=0)


def flat(deltas, **_):
    return deltas.mean(dim=0).flatten()


def in_double(deltas, **_):
    return deltas.double().mean(dim=0)


def nothing_at_zero(deltas, scale=1.0, weight=None, **_):
    lowest = 1.0 if weight is None else float(torch.as_tensor(weight).min())
    return deltas.mean(dim=0) if lowest else deltas.mean(dim=0) * math.nan


def changes_its_inputs(deltas, **_):
    deltas += 1
    return deltas[0]


def of_the_whole(deltas, **_):
    return deltas.mean(dim=0) / deltas.norm()


BROKEN = [
    ("one_model_gives_that_model", half, {}),
    ("zero_deltas_stay_zero", with_an_offset, {}),
    ("models_may_be_permuted", the_first, {}),
    ("models_may_be_permuted", another_models_weight, {}),
    ("weights_count", deaf_to_weights, {}),
    ("copies_give_the_model", with_a_threshold, {"identical": True}),
    ("models_may_be_scaled", with_a_threshold, {"homogeneous": True}),
    ("factors_multiply_the_result", the_first, {}),
    ("shape_and_type", flat, {}),
    ("shape_and_type", in_double, {}),
    ("ends_of_ranges", nothing_at_zero, {}),
    ("inputs_stay_and_results_repeat", changes_its_inputs, {}),
    ("blocks_make_the_whole", of_the_whole, {}),
    ("blocks_make_the_whole", deaf_to_weights, {"first_pass": Never}),
    ("blocks_make_the_whole", deaf_to_weights, {"first_pass": SaysTwice}),
    ("blocks_make_the_whole", deaf_to_weights, {"first_pass": SaysNever}),
]


@pytest.mark.parametrize(("rule", "function", "declared"), BROKEN)
def test_what_breaks_a_rule_is_found(rule, function, declared):
    right = describe("karcher" if rule == "ends_of_ranges" else "task_arithmetic")
    neutral = {"neutral": {"scale": 1.0}} if rule == "one_model_gives_that_model" else {}
    with pytest.raises(AssertionError):
        getattr(tensor_rules, rule)(replace(right, function=function, **declared), **neutral)
    getattr(tensor_rules, rule)(right, **neutral)


def test_a_first_pass_that_declares_its_passes_keeps_the_rule():
    right = describe("average")
    tensor_rules.blocks_make_the_whole(
        replace(right, function=deaf_to_weights, parameters={}, first_pass=Once)
    )


def test_every_rule_is_shown_to_find_something():
    named = {tensor_rules.one_model_gives_that_model, tensor_rules.blocks_make_the_whole}
    assert {rule for rule, *_ in BROKEN} == {r.__name__ for r in {*tensor_rules.ALL, *named}}
