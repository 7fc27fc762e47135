"""Values from closed forms: 002's two-point distributions, and bins worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alliage.evaluation.calibration import expected_calibration_error, reliability


@pytest.mark.parametrize("eps", [0.1, 0.2, 0.05])
def test_two_points_around_a_half(eps):
    # v = ½ ± ε and y decided by the point: |y − v| = ½ − ε everywhere.
    found = expected_calibration_error([0.5 - eps, 0.5 + eps], [0, 1])
    assert found == pytest.approx(0.5 - eps, abs=1e-15)


def test_the_family_f_eps_of_the_course():
    # Predicts ε and 1 − ε where the truth is 0.1 and 0.9, half of the mass each.
    values, weights = [0.01, 0.01, 0.99, 0.99], [0.05, 0.45, 0.45, 0.05]
    found = expected_calibration_error(values, [1, 0, 1, 0], weights=weights)
    assert found == pytest.approx(0.09, abs=1e-15)


def test_one_value_half_positive():
    assert expected_calibration_error([0.8] * 4, [1, 0, 1, 0]) == pytest.approx(0.3, abs=1e-15)


def test_calibrated_groups_have_no_error():
    values = [0.25] * 4 + [0.5] * 2
    assert expected_calibration_error(values, [1, 0, 0, 0, 1, 0]) == 0.0


def test_bins_let_errors_cancel_that_distinct_values_do_not():
    values, labels = [0.6, 0.7, 0.8, 0.9], [1, 0, 1, 1]
    # Alone: (0.4 + 0.7 + 0.2 + 0.1) / 4. In one bin: |3 − 3.0| / 4.
    assert expected_calibration_error(values, labels) == pytest.approx(0.35)
    assert expected_calibration_error(values, labels, bins=1) == pytest.approx(0, abs=1e-15)
    # (0.5, 0.75] holds 0.6 and 0.7: |1 − 1.3|; (0.75, 1] holds 0.8 and 0.9: |2 − 1.7|.
    assert expected_calibration_error(values, labels, bins=4) == pytest.approx(0.15)


def test_bins_are_closed_on_the_right_and_the_ends_belong_to_them():
    table = reliability([0.0, 0.5, 0.7, 1.0], [0, 1, 0, 1], bins=10)
    assert [(row.low, row.high) for row in table] == [
        (0.0, 0.1), (0.4, 0.5), (pytest.approx(0.6), pytest.approx(0.7)), (0.9, 1.0),
    ]  # fmt: skip
    assert [row.examples for row in table] == [1, 1, 1, 1]
    assert table[2].confidence == 0.7
    assert table[2].accuracy == 0.0


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_the_table_accounts_for_every_example_and_for_the_error(pairs, bins):
    values, labels = map(np.array, zip(*pairs, strict=True))
    table = reliability(values, labels, bins)
    assert sum(row.examples for row in table) == len(pairs)
    assert all(row.low <= row.confidence <= row.high + 1e-12 for row in table)
    from_table = sum(r.examples * abs(r.accuracy - r.confidence) for r in table) / len(pairs)
    assert expected_calibration_error(values, labels, bins) == pytest.approx(from_table, abs=1e-12)
    # Coarser groups never show more: the triangle inequality.
    plug_in = expected_calibration_error(values, labels)
    assert expected_calibration_error(values, labels, bins) <= plug_in + 1e-12


def test_repeating_an_example_is_doubling_its_weight():
    repeated = expected_calibration_error([0.3, 0.3, 0.9, 0.3], [0, 1, 1, 1])
    weighted = expected_calibration_error([0.3, 0.3, 0.9], [0, 1, 1], weights=[1, 2, 1])
    assert weighted == pytest.approx(repeated, abs=1e-15)


@pytest.mark.parametrize(
    ("values", "labels", "more"),
    [
        ([1.1], [1], {}),
        ([float("nan")], [1], {}),
        ([0.5], [2], {}),
        ([0.5, 0.5], [1], {}),
        ([], [], {}),
        ([[0.5]], [[1]], {}),
        ([0.5], [1], {"bins": 0}),
        ([0.5], [1], {"weights": [-1]}),
        ([0.5], [1], {"weights": [0]}),
    ],
)
def test_what_is_no_probability_is_refused(values, labels, more):
    with pytest.raises(ValueError, match=r"[Ee]xpected|must"):
        expected_calibration_error(values, labels, **more)
