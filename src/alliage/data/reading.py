"""From a source to examples by the names of their labels, with every problem of the source."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from typing import Any

from alliage.data import conll
from alliage.data.columns import Columns, ImageColumns, TagColumns
from alliage.data.files import Row
from alliage.data.images import check_image
from alliage.data.sources import Source
from alliage.data.task import is_iob2
from alliage.errors import AlliageError, Problem, nearest

_MOST_PROBLEMS = 50  # of one source that are written out


@dataclass
class Labels:
    """The labels that occur in a source.

    Attributes:
        places: name -> how often it occurs, and where first. None stands for a missing label, "-1"
            for one that is hidden as such; in tasks without label names "" for any other.
    """

    places: dict[str | None, tuple[int, str]] = field(default_factory=dict)

    def add(self, row: Row, hidden: Any) -> None:
        """Count the labels of a row."""
        names: Sequence[str | None]
        if isinstance(row.label, tuple):
            names = row.label
        elif row.label is None or hidden == "-1":
            names = (row.label,)
        else:
            names = ("-1" if row.label == hidden else "",)
        for name in names:
            count, place = self.places.get(name, (0, row.place))
            self.places[name] = (count + 1, place)

    def names(self) -> tuple[str, ...]:
        """The labels, without what stands for none."""
        return tuple(name for name in self.places if name is not None)

    def are_hidden(self, known: Collection[str | None]) -> bool:
        """Whether there is none at all, or none but a -1 that is not among the known labels."""
        found = set(self.places)
        return found == {None} or (found == {"-1"} and "-1" not in known)


def first_record(source: Source) -> Mapping[str, Any]:
    """The first example of a source that can be read, for its columns.

    Raises:
        AlliageError: there is none.
    """
    problems = []
    for _, record in source.records():
        if not isinstance(record, Problem):
            return record
        problems.append(record)
    raise AlliageError(problems[:_MOST_PROBLEMS] or Problem(source.where, "holds no example."))


def read(source: Source, columns: Columns, labels: Labels, *, may_hide: bool) -> Iterator[Row]:
    """The examples of a source, one after the other; their labels are counted on the way.

    Args:
        source: where they are.
        columns: which of them hold what.
        labels: that occur, to be counted; whole when the last example has been given.
        may_hide: whether labels may be missing altogether, as a test split's.

    Raises:
        AlliageError: columns that are not there, at once; or wrong lines, values and tags, when
            all have been seen.
    """
    problems: list[Problem] = []
    more = 0
    entities: list[Problem] = []  # in case the tags turn out to be of entities
    records = source.records()
    first = next(records, None)
    if first is not None and isinstance(first[1], dict):
        lacking = _lacking(columns, first[1], source.where, may_hide)
        if isinstance(first[1].get(columns.domain or ""), list):
            what = f"column {columns.domain!r} is of tokens, but a domain is of a sentence."
            lacking.append(
                Problem(source.where, what, "Of .conllu, name a comment: # genre = news")
            )
        if lacking:  # as every other will
            raise AlliageError(lacking)
    for place, record in chain(() if first is None else (first,), records):
        row, found = _row(source, columns, place, record, may_hide)
        if row is not None:
            labels.add(row, columns.hidden)
            lines = record.get(conll.LINES) if isinstance(record, dict) else None
            if lines is not None and row.label is not None and isinstance(columns, TagColumns):
                if columns.tags == "upos":
                    found = conll.unknown_upos(source.where, lines, row.label)
                elif len(entities) < _MOST_PROBLEMS:
                    entities += conll.broken_entities(source.where, lines, row.label)
            if not found:
                yield row
        room = _MOST_PROBLEMS - len(problems)
        problems += found[:room]
        more += len(found[room:])
    names = labels.names()
    if None in labels.places and (names or not may_hide):
        count, place = labels.places[None]
        what = f"column {columns.label_column!r}: {count} without a label, the first one here."
        problems.append(Problem(f"{source.where}, {place}", what))
    if not problems and is_iob2(names):
        problems = entities
    if more:
        problems.append(Problem(source.where, f"{more} more of such problems."))
    if problems:
        raise AlliageError(problems)


def _row(
    source: Source,
    columns: Columns,
    place: str,
    record: dict[str, Any] | Problem,
    may_hide: bool,
) -> tuple[Row | None, list[Problem]]:
    """An example, or what is wrong with it."""
    if isinstance(record, Problem):
        return None, [record]
    where = f"{source.where}, {place}"
    problems = _lacking(columns, record, where, may_hide)
    if problems:
        return None, problems
    inputs = label = domain = None
    try:
        inputs = columns.inputs_of(record)
        if isinstance(columns, ImageColumns) and isinstance(inputs, str | bytes):
            inputs = check_image(inputs, source.folder)
    except ValueError as error:
        problems.append(Problem(where, str(error)))
    try:
        label = columns.label_of(record)
    except ValueError as error:
        problems.append(Problem(where, str(error)))
    try:
        domain = columns.domain_of(record)
    except ValueError as error:
        problems.append(Problem(where, str(error)))
    return (None, problems) if problems else (Row(place, inputs, label, domain), [])


def _lacking(
    columns: Columns, record: Mapping[str, Any], where: str, may_hide: bool
) -> list[Problem]:
    """The columns that an example lacks; labels may be hidden, but not by a wrong name."""
    wanted = (*columns.input_columns, *([columns.domain] if columns.domain else ()))
    missing = [name for name in wanted if name not in record]
    if not missing and columns.label_column in record:
        return []
    names = [name for name in record if name not in (conll.LINES, "-1")]
    others = set(names) - set(wanted)
    typo = get_close_matches(columns.label_column, others, cutoff=0.7)
    if columns.label_column not in record and (typo or not may_hide):
        missing.append(columns.label_column)
    return [Problem(where, f"no column {name!r}.", nearest(name, names)) for name in missing]
