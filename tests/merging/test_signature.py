"""What a signature says of its parameters."""

import math
from typing import Annotated

import pytest

from alliage.merging.signature import In, declared


def _parameter(kind, allowed):
    def function(deltas, *, value: Annotated[kind, allowed] = 1):
        """Take a value."""

    return declared(function, tensors=1, passes=False)["value"]


@pytest.mark.parametrize(
    ("allowed", "ends"),
    [
        (In(0), [0]),
        (In(0, open_low=True), [1]),
        (In(0.5, 9), [1]),
        (In(0.5, 9, open_low=True), [1]),
        (In(-0.5), [0]),
        (In(0.2, 0.8), []),
        (In(0, 1, open_low=True), [1]),
        (In(-math.inf), []),
        (In(-math.inf, 3), []),
    ],
)
def test_the_end_of_a_range_of_counts_is_the_least_that_belongs_to_it(allowed, ends):
    parameter = _parameter(int, allowed)
    assert parameter.extremes() == ends
    assert not any(parameter.check(end) for end in ends)
    assert all(type(end) is int for end in parameter.extremes())


@pytest.mark.parametrize(
    ("allowed", "ends"),
    [(In(0, 1), [0, 1]), (In(0, 1, open_low=True), [1]), (In(-math.inf), []), (In(2), [2])],
)
def test_the_ends_of_a_range_of_numbers_are_those_that_belong_to_it(allowed, ends):
    assert _parameter(float, allowed).extremes() == ends
