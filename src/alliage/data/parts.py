"""What files hold, and the examples that it becomes once the labels of the task are known."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from alliage.data.columns import Columns
from alliage.data.files import Row
from alliage.data.images import decode
from alliage.data.reading import Labels, read
from alliage.data.sources import Source
from alliage.data.stored import read_stored
from alliage.data.task import Example, Kind, LazyExamples
from alliage.errors import AlliageError, Problem


@dataclass(frozen=True)
class Part:
    """What a source holds.

    Attributes:
        where: the source, for errors.
        rows: its examples.
        labels: that occur in it.
        declared: the labels that it declares itself, in order; nothing where it does not.
        hides: whether it does not tell its labels.
    """

    where: str
    rows: Sequence[Row]
    labels: Labels
    declared: tuple[str, ...]
    hides: bool

    def examples(self, index: Mapping[str, int] | None) -> Sequence[Example]:
        """Its examples, in memory where they are small.

        Args:
            index: label -> its index in the task's labels; nothing in tasks without label names.
        """
        examples = _Examples(self.rows, None if self.hides else index, self.hides)
        in_files = bool(self.rows) and isinstance(self.rows[0].inputs, str | bytes)
        return tuple(examples) if isinstance(self.rows, list) and not in_files else examples


def read_part(
    source: Source,
    kind: Kind,
    columns: Columns,
    known: Collection[str | None] = (),
    *,
    may_hide: bool,
) -> Part:
    """Read a source; into memory, or into Alliage's cache where it is large.

    Args:
        source: where the examples are.
        kind: of the task.
        columns: which of them hold what.
        known: labels of the task; where -1 is among them, it hides none.
        may_hide: whether it may hide its labels, as a test split's may.

    Raises:
        AlliageError: it cannot be read, or every problem of its examples.
    """
    labels = Labels()
    identity = source.stored_as()
    rows: Sequence[Row] = (
        list(read(source, columns, labels, may_hide=may_hide))
        if identity is None
        else read_stored(source, identity, kind, columns, labels, may_hide=may_hide)
    )
    if not rows:
        raise AlliageError(Problem(source.where, "holds no example."))
    hides = may_hide and labels.are_hidden(known)
    if kind == "multiple-choice" and "-1" in labels.places and not hides:
        count, place = labels.places["-1"]
        what = f"{count} without a right choice (-1), the first one here."
        raise AlliageError(Problem(f"{source.where}, {place}", what))
    return Part(source.where, rows, labels, source.declared(columns), hides)


def chained(parts: Sequence[Sequence[Example]]) -> Sequence[Example]:
    """Several files' examples in a row."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, tuple) for part in parts):
        return tuple(example for part in parts for example in part)
    return _Chain(parts)


class _Examples(LazyExamples):
    """Rows with labels as indices; images are decoded when they are asked for."""

    def __init__(self, rows: Sequence[Row], index: Mapping[str, int] | None, hides: bool) -> None:
        self._rows = rows
        self._index = index
        self._hides = hides

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, place: int) -> Example:
        row = self._rows[place]
        inputs = decode(row.inputs) if isinstance(row.inputs, str | bytes) else row.inputs
        return Example(inputs, None if self._hides else self._label(row.label), row.domain)

    def _label(self, label: Any) -> Any:
        if self._index is None:
            return label
        if isinstance(label, tuple):
            return tuple(self._index[name] for name in label)
        return self._index[label]


class _Chain(LazyExamples):
    """The examples of several files in a row."""

    def __init__(self, parts: Sequence[Sequence[Example]]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def at(self, place: int) -> Example:
        part = bisect_right(self._ends, place)
        return self._parts[part][place - (self._ends[part - 1] if part else 0)]
