"""Tables as records: .tsv (no quoting), .csv (quoted), .jsonl and .parquet."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alliage.data.files import Record, raw_lines, read_lines
from alliage.errors import AlliageError, Problem

_LONGEST_CELL = 2**31 - 1  # characters; a C long on every platform
SEPARATORS = (",", ";", "\t", "|")


def read_tsv(path: Path, encoding: str | None = None) -> Iterator[Record]:
    """Rows of a .tsv file: one header line, columns separated by TAB, no quoting.

    Raises:
        AlliageError: the file cannot be read, or its header names a column twice.
    """
    header: list[str] | None = None
    for number, line in read_lines(path, encoding):
        cells = line.split("\t")
        if header is None:
            header = _header(path, cells)
        elif line:
            fix = "Columns are separated by one TAB, without quoting."
            yield _fitted(path, number, header, cells, fix)


def read_csv(
    path: Path, encoding: str | None = None, separator: str | None = None
) -> Iterator[Record]:
    """Rows of a .csv file: one header line, cells in double quotes where they need it (RFC 4180).

    Args:
        path: the file.
        encoding: UTF-8 by default.
        separator: of columns; by default the one of , ; TAB | that splits the header most often.

    Raises:
        AlliageError: the file cannot be read, its header names a column twice, or a quotation
            mark is never closed.
    """
    lines = raw_lines(path, encoding)
    first = next(lines, None)
    if first is None:
        return
    separator = separator or max(SEPARATORS, key=lambda mark: len(_cells(first[1], mark)))
    consumed = 0

    def fed() -> Iterator[str]:
        nonlocal consumed
        consumed = 1
        yield first[1]
        for number, line in lines:
            consumed = number
            yield line

    reader = csv.reader(fed(), delimiter=separator, strict=True)
    header: list[str] | None = None
    start = 1
    while True:
        start = consumed + 1
        try:
            with _long_cells():
                cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fix = "Is a quotation mark not closed, or not doubled inside a quoted cell?"
            raise AlliageError(Problem(f"{path}, line {start}", f"{error}.", fix)) from None
        if header is None:
            header = _header(path, cells)
        elif cells:
            fix = f"Columns are separated by {separator!r}; cells that hold it stand in quotes."
            yield _fitted(path, start, header, cells, fix)


def read_jsonl(path: Path, encoding: str | None = None) -> Iterator[Record]:
    """Objects of a .jsonl file, one a line.

    Raises:
        AlliageError: the file cannot be read.
    """
    for number, line in read_lines(path, encoding):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"line {number}", Problem(where, f"is not valid JSON: {error}.")
            continue
        if isinstance(record, dict):
            yield f"line {number}", record
        else:
            what = f"expected an object, found {type(record).__name__}."
            yield f"line {number}", Problem(where, what)


def read_parquet(path: Path) -> Iterator[Record]:
    """Rows of a .parquet file; names for classes where Hugging Face's `datasets` recorded them.

    Raises:
        AlliageError: no readable Parquet file.
    """
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        names = _class_names(file.schema_arrow)
        number = 0
        for batch in file.iter_batches(batch_size=1000):
            for record in batch.to_pylist():
                number += 1
                for column, classes in names.items():
                    record[column] = named(record[column], classes)
                yield f"row {number}", record


def declared_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Column -> names of its classes, where `datasets` recorded them in a .parquet file.

    Raises:
        AlliageError: no readable Parquet file.
    """
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        return _class_names(file.schema_arrow)


def _class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    recorded = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(recorded)["info"]["features"] if recorded else {}
    found = {}
    for column, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
        if inner.get("_type") == "ClassLabel" and inner.get("names"):
            found[column] = tuple(inner["names"])
    return found


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        what = f"is no readable Parquet file: {str(error).splitlines()[0]}"
        raise AlliageError(Problem(str(path), what)) from None


def named(value: Any, classes: tuple[str, ...]) -> Any:
    """Names of classes for their numbers; what names none, as -1 for a hidden label, stays."""
    if not classes:
        return value
    if isinstance(value, list):
        return [named(item, classes) for item in value]
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read whole documents; its limit is one of the process."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _cells(line: str, separator: str) -> list[str]:
    with _long_cells():
        return next(csv.reader([line], delimiter=separator), [])


def _header(path: Path, cells: list[str]) -> list[str]:
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise AlliageError(
            [Problem(str(path), f"the header names the column {name!r} twice.") for name in twice]
        )
    return cells


def _fitted(path: Path, number: int, header: list[str], cells: list[str], fix: str) -> Record:
    place = f"line {number}"
    if len(cells) == len(header):
        return place, dict(zip(header, cells, strict=True))
    what = f"expected {len(header)} columns ({', '.join(header)}), found {len(cells)}."
    return place, Problem(f"{path}, {place}", what, fix)
