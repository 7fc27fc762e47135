from __future__ import annotations

import math

import pytest

from alliage.report.figures.svg import Scale, element, scale, short, shorten, text_width, ticks


def test_everything_but_markup_is_escaped() -> None:
    inner = element("b", "<&>")
    assert str(inner) == "<b>&lt;&amp;&gt;</b>"
    assert str(element("a", inner, title='"x"', data_tip=None)) == (
        '<a title="&#34;x&#34;"><b>&lt;&amp;&gt;</b></a>'
    )


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0.0, 1.0, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.013, 0.021, 3, [-0.01, 0, 0.01, 0.02]),
        (90.0, 1100.0, 5, [200, 400, 600, 800, 1000]),
    ],
)
def test_ticks_are_round(low: float, high: float, about: int, expected: list[float]) -> None:
    assert ticks(low, high, about) == expected


@pytest.mark.parametrize(
    "values", [[], [3.0], [0.0, 0.0], [math.nan, 1.0], [-5e-9, 2e-9], [1e12, 2e12]]
)
def test_scales_hold_their_values_and_have_ticks(values: list[float]) -> None:
    x = scale(values, 50.0, 400.0)
    assert all(50 <= x(value) <= 400 for value in values if math.isfinite(value))
    assert x.ticks
    assert all(x.low <= tick <= x.high for tick in x.ticks)


def test_scale_maps_ends_to_ends() -> None:
    y = Scale(0.0, 2.0, 300.0, 100.0)
    assert (y(0), y(0.5), y(2)) == (300, 250, 100)


@pytest.mark.parametrize("text", ["short", "a" * 80, "模型" * 30, "org/" + "x" * 40])
def test_shortened_text_fits_and_keeps_both_ends(text: str) -> None:
    shown = shorten(text, 90)
    assert text_width(shown) <= 90
    assert shown[0] == text[0]
    assert shown[-1] == text[-1]


def test_numbers_without_value_say_so() -> None:
    assert short(math.nan) == "n/a"
