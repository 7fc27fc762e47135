"""Tables with a label column: .tsv (one header line, no quoting) and .jsonl."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alliage.data.files import Row, read_lines, suffix_of
from alliage.errors import AlliageError, Problem, nearest

# Column names that data sets use; the first set found is taken.
_TEXTS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("title", "description"),
    ("sentence",),
    ("text",),
    ("question",),
)
_LABEL = "label"


class Columns(NamedTuple):
    """Which columns hold what.

    Attributes:
        texts: one column of texts, or two of pairs.
        label: the column of labels.
    """

    texts: tuple[str, ...]
    label: str


def read_table(path: Path, columns: Columns | None = None) -> list[Row]:
    """Texts and labels of a .tsv or .jsonl file, which may be gzipped.

    Args:
        path: the file.
        columns: by default those with names that data sets use for texts and labels.

    Raises:
        AlliageError: missing columns, lines that do not fit, missing values; all at once.
    """
    records = _tsv(path) if suffix_of(path) == ".tsv" else _jsonl(path)
    problems: list[Problem] = []
    rows: list[Row] = []
    for number, record in records:
        where = f"{path}, line {number}"
        if isinstance(record, Problem):
            problems.append(record)
            continue
        if columns is None:
            columns = infer_columns(record, str(path))
        lacking = [name for name in (*columns.texts, columns.label) if name not in record]
        if lacking and not rows:  # as every line will
            raise AlliageError([_no_column(str(path), name, record) for name in lacking])
        problems += [_no_column(where, name, record) for name in lacking]
        if lacking:
            continue
        texts = tuple(record[name] for name in columns.texts)
        label = _label(record[columns.label])
        problems += [
            Problem(where, f"column {name!r}: expected text, found {text!r}.")
            for name, text in zip(columns.texts, texts, strict=True)
            if not isinstance(text, str)
        ]
        if not label:
            found = record[columns.label]
            problems.append(
                Problem(where, f"column {columns.label!r}: expected a label, found {found!r}.")
            )
        else:
            rows.append(Row(f"line {number}", texts, label))
    if problems:
        raise AlliageError(problems)
    return rows


def infer_columns(names: Collection[str], where: str) -> Columns:
    """Choose the columns of texts and labels by their names.

    Raises:
        AlliageError: no columns of such names.
    """
    found = next((texts for texts in _TEXTS if set(texts) <= set(names)), None)
    problems = []
    if found is None:
        known = "; ".join(" + ".join(texts) for texts in _TEXTS)
        problems.append(
            Problem(
                where,
                f"no column of texts among {sorted(names)}; expected one of: {known}.",
                "Write a YAML file that names the columns.",
            )
        )
    if _LABEL not in names:
        problems.append(_no_column(where, _LABEL, names))
    if found is None or problems:
        raise AlliageError(problems)
    return Columns(found, _LABEL)


def _no_column(where: str, name: str, names: Collection[str]) -> Problem:
    return Problem(where, f"no column {name!r}.", nearest(name, names))


def _label(value: Any) -> str | None:
    """A label's name; numbers and truth values as JSON writes them; no text for anything else."""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value) if isinstance(value, bool | int) else None


def _tsv(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    header: list[str] | None = None
    for number, line in read_lines(path):
        cells = line.split("\t")
        if header is None:
            header = cells
        elif len(cells) == len(header):
            yield number, dict(zip(header, cells, strict=True))
        elif line:
            yield (
                number,
                Problem(
                    f"{path}, line {number}",
                    f"expected {len(header)} columns ({', '.join(header)}), found {len(cells)}.",
                    "Columns are separated by one TAB, without quoting.",
                ),
            )


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, Problem(where, f"is not valid JSON: {error}.")
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            yield number, Problem(where, f"expected an object, found {type(record).__name__}.")
