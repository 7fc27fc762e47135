"""SVG by hand: escaped elements, linear scales with round ticks, text that fits."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

FONT_SIZE = 12.0  # px in the SVG's own units; the style sheet sets the same
_LETTER = 0.62  # em, the mean width in the widest of the usual system fonts


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
    """A linear map of [low, high] onto [start, stop] of the picture."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round numbers inside the domain, about one for every 60 px."""
        return ticks(self.low, self.high, max(2, round(abs(self.stop - self.start) / 60)))


def scale(values: Iterable[float], start: float, stop: float, *, margin: float = 0.05) -> Scale:
    """A scale that holds all finite values, with a margin as a share of their range."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, start, stop)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high], about so many.

    >>> ticks(0.0, 1.0, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = min((1, 2, 5, 10), key=lambda factor: abs(factor * magnitude - rough)) * magnitude
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, digits) for index in range(first, last + 1)]


def axes(x: Scale, y: Scale, x_label: str, y_label: str, *, grid: bool = True) -> Markup:
    """Bottom and left axis with ticks, labels and a light grid; `y` runs upwards."""
    left, right, bottom, top = x.start, x.stop, y.start, y.stop
    parts: list[str] = []
    for value in x.ticks:
        if grid:
            parts.append(
                element("line", class_="grid", x1=x(value), x2=x(value), y1=bottom, y2=top)
            )
        parts.append(
            element("text", short(value), class_="tick", x=x(value), y=bottom + 16,
                    text_anchor="middle")
        )  # fmt: skip
    for value in y.ticks:
        if grid:
            parts.append(
                element("line", class_="grid", x1=left, x2=right, y1=y(value), y2=y(value))
            )
        parts.append(
            element("text", short(value), class_="tick", x=left - 6, y=y(value) + 4,
                    text_anchor="end")
        )  # fmt: skip
    parts.append(
        element("path", class_="axis", d=path([(left, top), (left, bottom), (right, bottom)]))
    )
    middle = (left + right) / 2
    parts.append(element("text", x_label, class_="label", x=middle, y=bottom + 34,
                         text_anchor="middle"))  # fmt: skip
    # Above the axis and not turned beside it: it is read without turning the head.
    parts.append(element("text", y_label, class_="label", x=2, y=top - 10))
    return group(parts)


def short(value: float) -> str:
    """A number for a tick or a cell, at most four figures.

    >>> short(0.25), short(12.0), short(1234567.0), short(float("nan"))
    ('0.25', '12', '1.235e+06', 'n/a')
    """
    if not math.isfinite(value):
        return "n/a"
    return f"{value:.4g}".replace("-", "−")


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """An estimate of a text's width that is seldom too small; East Asian wide letters take 1 em."""
    return size * sum(
        1.0 if unicodedata.east_asian_width(letter) in "WF" else _LETTER for letter in text
    )


def shorten(text: str, width: float, size: float = FONT_SIZE) -> str:
    """The text, or its start and end around an ellipsis where it is wider than `width`.

    >>> shorten("organisation/model-sentiment", 100)
    'organi…timent'
    """
    if text_width(text, size) <= width:
        return text
    keep = max(2, int(width / size / _LETTER) - 1)
    while (
        keep > 2 and text_width(text[: (keep + 1) // 2] + "…" + text[-(keep // 2) :], size) > width
    ):
        keep -= 1
    return text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"
    return value
