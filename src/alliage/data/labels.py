"""Label sets: which there are, in which order, and whether all splits keep to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from alliage.data.files import Row
from alliage.data.task import Example, is_iob2
from alliage.errors import Problem, nearest


def collect(rows: Iterable[Row]) -> tuple[str, ...]:
    """The labels that occur, in a fixed order.

    Numbers by value; IOB2 tags by entity, "O" first; all others by name.
    """
    found: set[str] = set()
    for row in rows:
        found.update(_names(row))
    labels = tuple(sorted(found))
    if is_iob2(labels):
        return tuple(sorted(labels, key=lambda tag: (tag != "O", tag[2:], tag[:2])))
    if all(label.removeprefix("-").isdecimal() for label in labels):
        return tuple(sorted(labels, key=int))
    return labels


def encode(
    rows: Sequence[Row], labels: Sequence[str], file: Path, problems: list[Problem]
) -> tuple[Example, ...]:
    """Rows with labels as indices into `labels`.

    Labels outside `labels` go to `problems`: each once, with its first place and its count.
    """
    index = {label: number for number, label in enumerate(labels)}
    strangers: dict[str, list[str]] = {}
    examples = []
    for row in rows:
        unknown = [name for name in _names(row) if name not in index]
        for name in unknown:
            strangers.setdefault(name, []).append(row.place)
        if unknown:
            continue
        label = (
            index[row.label]
            if isinstance(row.label, str)
            else tuple(index[name] for name in row.label)
        )
        examples.append(Example(row.inputs, label))
    problems += [
        Problem(
            f"{file}, {places[0]}",
            f"label {name!r} ({len(places)} times) is not among the labels of the task.",
            nearest(name, labels),
        )
        for name, places in strangers.items()
    ]
    return tuple(examples)


def rename(rows: Iterable[Row], names: Mapping[str, str]) -> list[Row]:
    """Rows with the labels of a file renamed; labels without a new name stay."""
    return [
        row._replace(
            label=names.get(row.label, row.label)
            if isinstance(row.label, str)
            else tuple(names.get(name, name) for name in row.label)
        )
        for row in rows
    ]


def _names(row: Row) -> tuple[str, ...]:
    return (row.label,) if isinstance(row.label, str) else row.label
