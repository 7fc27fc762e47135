"""SVG by hand: escaped elements, linear scales with round ticks, text that fits."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 400.0  # of a picture in one column; the unit is a px of its own size
FONT_SIZE = 12.0  # the style sheet sets the same
TICK_SIZE = 11.0
# Widths in em in the widest of the usual system fonts, Verdana and DejaVu Sans.
_LETTERS = (
    dict.fromkeys("ijl|'", 0.35)
    | dict.fromkeys("tfrI-.,:;!/()[] ", 0.46)
    | dict.fromkeys("mwMW@%+…−", 1.0)
)
_CAPITAL, _LETTER = 0.8, 0.64


def element(name: str, *children: str, **attributes: object) -> Markup:
    """One element; text and attributes are escaped, Markup is not.

    A keyword's trailing underscore is dropped and the others become hyphens, so that `class_` and
    `text_anchor` can be written; None leaves the attribute out; numbers get two decimals.

    >>> element("text", "a < b", x=1.0, text_anchor="end")
    Markup('<text x="1" text-anchor="end">a &lt; b</text>')
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = "".join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>")


def group(children: Iterable[str], **attributes: object) -> Markup:
    """A `g` element."""
    return element("g", *children, **attributes)


def image(children: Iterable[str], width: float, height: float, title: str) -> Markup:
    """A whole picture that a screen reader announces by its title and the keyboard can enter.

    Its marks, the elements with `data-tip`, are what the page's script shows and moves between.
    """
    return element(
        "svg", element("title", title), *children,
        viewBox=f"0 0 {_plain(width)} {_plain(height)}", width=width, height=height,
        role="img", tabindex="0",
    )  # fmt: skip


def path(points: Iterable[tuple[float, float]]) -> str:
    """The `d` of a line through points."""
    return "M" + "L".join(f"{_plain(x)} {_plain(y)}" for x, y in points)


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map of [low, high] onto [start, stop] of the picture, of whole numbers or of all."""

    low: float
    high: float
    start: float
    stop: float
    whole: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round numbers inside the domain, about one for every 60 px."""
        about = max(2, round(abs(self.stop - self.start) / 60))
        return ticks(self.low, self.high, about, whole=self.whole)


def scale(values: Iterable[float], start: float, stop: float, *, whole: bool = False) -> Scale:
    """A scale that holds all finite values and a twentieth of their range on both sides."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = (high - low) / 20 or abs(high) / 10 or 1.0
    return Scale(low - room, high + room, start, stop, whole)


def ticks(low: float, high: float, about: int, *, whole: bool = False) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high], about so many.

    >>> ticks(0.0, 1.0, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = min((1, 2, 5, 10), key=lambda factor: abs(factor * magnitude - rough)) * magnitude
    if whole:
        step = max(step, 1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, digits) for index in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Texts of ticks, all with the decimals that the one of most decimals needs.

    >>> tick_labels([0.0, 0.5, 1.0]), tick_labels([-1000.0, 0.0]), tick_labels([0.0, 2e-7])
    (['0.0', '0.5', '1.0'], ['−1,000', '0'], ['0', '2e−07'])
    """
    exponents = (Decimal(str(value)).normalize().as_tuple().exponent for value in values)
    decimals = max(0, *(-int(exponent) for exponent in exponents))
    plain = decimals <= 5 and max(map(abs, values)) < 1e6
    texts = (f"{value:,.{decimals}f}" if plain else f"{value:.4g}" for value in values)
    return [text.replace("-", "−") for text in texts]


def left_margin(y: Scale) -> float:
    """Where a vertical axis must stand for its ticks to have room."""
    widest = max(text_width(text, TICK_SIZE) for text in tick_labels(y.ticks))
    return max(44.0, widest + 8)


def centred(text: str, x: float, y: float, *, size: float = FONT_SIZE, class_: str) -> Markup:
    """A text with its middle at x, or as near as the edges of a picture in one column allow."""
    shown = shorten(text, WIDTH - 4, size)
    half = text_width(shown, size) / 2
    middle = min(max(x, half + 2), WIDTH - 2 - half)
    return element("text", shown, class_=class_, x=middle, y=y, text_anchor="middle")


def ticks_below(x: Scale, bottom: float) -> Markup:
    """The ticks' texts of a horizontal axis, as many as keep apart."""
    texts = tick_labels(x.ticks)
    widest = max(text_width(text, TICK_SIZE) for text in texts) + 6
    apart = min((x(b) - x(a) for a, b in pairwise(x.ticks)), default=widest)
    shown = slice(None, None, math.ceil(widest / apart))
    return group(
        centred(text, x(value), bottom + 16, size=TICK_SIZE, class_="tick")
        for value, text in zip(x.ticks[shown], texts[shown], strict=True)
    )


def axes(x: Scale, y: Scale, x_label: str, y_label: str, *, grid: bool = True) -> Markup:
    """Bottom and left axis with ticks, labels and a light grid, in a picture of one column."""
    left, right, bottom, top = x.start, x.stop, y.start, y.stop
    parts: list[str] = []
    if grid:
        parts += [
            element("line", class_="grid", x1=x(value), x2=x(value), y1=bottom, y2=top)
            for value in x.ticks
        ]
    parts.append(ticks_below(x, bottom))
    for value, text in zip(y.ticks, tick_labels(y.ticks), strict=True):
        if grid:
            parts.append(
                element("line", class_="grid", x1=left, x2=right, y1=y(value), y2=y(value))
            )
        parts.append(
            element("text", text, class_="tick", x=left - 6, y=y(value) + 4, text_anchor="end")
        )  # fmt: skip
    parts.append(
        element("path", class_="axis", d=path([(left, top), (left, bottom), (right, bottom)]))
    )
    parts.append(centred(x_label, (left + right) / 2, bottom + 34, class_="label"))
    # Above the axis and not turned beside it: it is read without turning the head.
    parts.append(element("text", shorten(y_label, WIDTH - 4), class_="label", x=2, y=top - 10))
    return group(parts)


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """An estimate of a text's width that is seldom too small."""
    return size * sum(map(_letter_width, text))


def shorten(text: str, width: float, size: float = FONT_SIZE) -> str:
    """The text, or its start and end around an ellipsis where it is wider than `width`.

    >>> shorten("organisation/model-sentiment", 100)
    'organi…timent'
    """
    if text_width(text, size) <= width:
        return text
    keep = max(2, min(len(text) - 1, int(width / size / min(_LETTERS.values()))))
    while (
        keep > 2 and text_width(text[: (keep + 1) // 2] + "…" + text[-(keep // 2) :], size) > width
    ):
        keep -= 1
    return text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]


@cache
def _letter_width(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    return _LETTERS.get(letter, _CAPITAL if letter.isupper() else _LETTER)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"
    return value
