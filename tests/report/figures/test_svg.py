from __future__ import annotations

import math

import pytest

from alliage.report.figures.svg import (
    WIDTH,
    Scale,
    centred,
    element,
    left_margin,
    scale,
    shorten,
    text_width,
    tick_labels,
    ticks,
)  # fmt: skip


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


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.05, 0.1], ["0.00", "0.05", "0.10"]), ([0.25], ["0.25"]),
        ([1150.0, 1200.0], ["1,150", "1,200"]), ([-1.0, 0.0], ["−1", "0"]),
        ([1e6, 2e6], ["1e+06", "2e+06"]), ([1e-7, 2e-7], ["1e−07", "2e−07"]),
    ],
)  # fmt: skip
def test_labels_of_ticks(values: list[float], expected: list[str]) -> None:
    assert tick_labels(values) == expected


@pytest.mark.parametrize("values", [[3.0], [3.0, 4.0], [6.0, 12.0], [0.0, 96.0]])
def test_scales_of_whole_numbers_have_whole_ticks(values: list[float]) -> None:
    x = scale(values, 50.0, 400.0, whole=True)
    assert x.ticks
    assert all(tick.is_integer() for tick in x.ticks)


def test_long_ticks_get_room() -> None:
    assert left_margin(Scale(0.0, 1.0, 300.0, 0.0)) == 44
    assert left_margin(Scale(0.0, 0.0005, 300.0, 0.0)) > 44


@pytest.mark.parametrize("text", ["x", "a name of middling length", "long " * 40])
@pytest.mark.parametrize("x", [0.0, 200.0, 400.0])
def test_centred_text_stays_in_the_picture(text: str, x: float) -> None:
    drawn = str(centred(text, x, 10.0, class_="label"))
    middle = float(drawn.split(' x="')[1].split('"')[0])
    half = text_width(drawn.split(">")[1].split("<")[0]) / 2
    assert half <= middle <= WIDTH - half
