from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alliage.errors import UsageError
from alliage.pruning.strategies import STRATEGIES, keep_layers

# Twelve layers from best to worst: 1, 2, 0, 3, 8, 5, 4, 6, 9, 7, 10, 11.
SCORES = [0.70, 0.80, 0.75, 0.65, 0.50, 0.55, 0.45, 0.35, 0.60, 0.40, 0.30, 0.20]


@pytest.mark.parametrize(
    ("strategy", "keep", "expected"),
    [
        ("first", 4, [0, 1, 2, 3]),
        ("last", 3, [9, 10, 11]),
        ("alternate-even", 6, [0, 2, 4, 6, 8, 10]),
        ("alternate-odd", 6, [1, 3, 5, 7, 9, 11]),
        ("alternate-even", 4, [0, 3, 6, 9]),
        ("alternate-odd", 3, [3, 7, 11]),
        ("alternate-even", 9, [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        ("symmetric-inner", 10, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("symmetric-inner", 2, [5, 6]),
        ("symmetric-outer", 10, [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]),
        ("symmetric-outer", 2, [0, 11]),
        ("best-n", 2, [1, 2]),
        ("best-n", 5, [0, 1, 2, 3, 8]),
        ("best-n", 6, [0, 1, 2, 3, 5, 8]),
        ("delete-worst-n", 11, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("delete-worst-n", 9, [0, 1, 2, 3, 4, 5, 6, 8, 9]),
        ("delete-worst-n", 7, [0, 1, 2, 3, 4, 5, 8]),
    ],
)
def test_of_twelve_layers(strategy, keep, expected):
    scores = SCORES if STRATEGIES[strategy].by_score else None
    assert keep_layers(strategy, 12, keep, scores) == expected


def test_symmetric_strategies_on_odd_depths():
    assert keep_layers("symmetric-inner", 5, 1) == [2]
    assert keep_layers("symmetric-inner", 5, 3) == [1, 2, 3]
    assert keep_layers("symmetric-outer", 5, 2) == [0, 4]
    assert keep_layers("symmetric-outer", 5, 5) == [0, 1, 2, 3, 4]


def test_equal_scores_prefer_layers_near_the_input():
    assert keep_layers("best-n", 4, 2, [0.5, 0.9, 0.5, 0.5]) == [0, 1]
    assert keep_layers("delete-worst-n", 4, 2, [0.5, 0.9, 0.5, 0.5]) == [0, 1]


@given(st.sampled_from(sorted(STRATEGIES)), st.integers(1, 40), st.data())
def test_every_strategy_keeps_that_many_layers_in_order_or_says_why_not(name, n_layers, data):
    keep = data.draw(st.integers(1, n_layers))
    scores = data.draw(
        st.lists(st.floats(-1, 1), min_size=n_layers, max_size=n_layers)
        if STRATEGIES[name].by_score
        else st.none()
    )
    uneven = {"symmetric-inner": (n_layers - keep) % 2, "symmetric-outer": keep % 2}
    if uneven.get(name) and keep < n_layers:
        with pytest.raises(UsageError, match="both ends"):
            keep_layers(name, n_layers, keep, scores)
        return
    kept = keep_layers(name, n_layers, keep, scores)
    assert len(kept) == keep
    assert kept == sorted(set(kept))
    assert kept[0] >= 0
    assert kept[-1] < n_layers
    mirrored = [n_layers - 1 - layer for layer in reversed(kept)]
    partners = {"first": "last", "alternate-even": "alternate-odd"}
    partners |= {second: first for first, second in partners.items()}
    if not STRATEGIES[name].by_score:
        assert keep_layers(partners.get(name, name), n_layers, keep) == mirrored


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("best", 12, 6), ["no strategy named 'best'. Did you mean 'best-n'"]),
        (("first", 12, 0), ["expected a whole number from 1 to 12, found 0"]),
        (("first", 12, 13), ["from 1 to 12, found 13"]),
        (("first", 12, 2.0), ["found 2.0"]),
        (("first", 12, True), ["found True"]),
        (("first", 12, 6, SCORES), ["first chooses by position", "best-n or delete-worst-n"]),
        (("best-n", 12, 6), ["needs a score for each of the 12 layers"]),
        (("best-n", 12, 6, SCORES[:3]), ["expected 12, one for each layer, found 3"]),
        (
            ("best-n", 4, 9, [0.1, float("nan"), 0.2, float("inf")]),
            ["found 9", "layer 1: expected a finite number, found nan", "layer 3: expected"],
        ),
        (("symmetric-inner", 12, 5), ["7 layers cannot be taken equally from both ends"]),
        (("symmetric-outer", 12, 5), ["odd number"]),
    ],
)
def test_wrong_arguments_are_all_named(arguments, messages):
    with pytest.raises(UsageError) as caught:
        keep_layers(*arguments)
    for message in messages:
        assert message in str(caught.value)
