"""What a report says, read back from its HTML without a browser."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """Elements, their attributes and texts, and the data of every figure by the figure's id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, dict[str, Any]] = {}
        self.text = ""
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._figure = ""
        self._open: tuple[str, bool] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "figure":
            self._figure = attributes["id"] or ""
        if tag in self.raw:
            self._open = (tag, attributes.get("class") == "data")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.raw:
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is None:
            self.text += data
        elif self._open[1]:
            self.data[self._figure] = json.loads(data)
        else:
            self.raw[self._open[0]].append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def rows(self, figure: str) -> list[dict[str, Any]]:
        content = self.data[figure]
        return [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]
