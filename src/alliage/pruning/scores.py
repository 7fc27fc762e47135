"""Reading scores of layers from a file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from alliage.errors import AlliageError, Problem, UsageError

_COLUMNS = ("layer", "score")


def read_scores(path: str | Path) -> list[float]:
    """One score for each layer, from layer 0 on.

    Args:
        path: JSON, a list of numbers or an object with such a list under "scores"; or CSV or
            TSV (.tsv, .tab) with the columns layer and score, its rows in any order.

    Raises:
        UsageError: no such file.
        AlliageError: its content is something else; every value or row that is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(Problem(str(path), f"cannot be read: {error.strerror}.")) from None
    except UnicodeDecodeError:
        raise AlliageError(Problem(str(path), "is no UTF-8 text.")) from None
    if path.suffix.lower() == ".json":
        return _from_json(path, text)
    return _from_table(path, text, "\t" if path.suffix.lower() in (".tsv", ".tab") else ",")


def _from_json(path: Path, text: str) -> list[float]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise AlliageError(Problem(str(path), f"is not readable JSON: {error}.")) from None
    values = content.get("scores") if isinstance(content, dict) else content
    if not isinstance(values, list):
        raise AlliageError(
            Problem(str(path), 'expected a list of numbers, or {"scores": [numbers]}.')
        )
    problems = [
        Problem(f"{path}: layer {layer}", f"expected a number, found {value!r}.")
        for layer, value in enumerate(values)
        if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    if problems:
        raise AlliageError(problems)
    return [float(value) for value in values]


def _from_table(path: Path, text: str, delimiter: str) -> list[float]:
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    found = [name.strip() for name in rows.fieldnames or ()]
    if not set(_COLUMNS) <= set(found):
        raise AlliageError(
            Problem(
                str(path),
                f"expected the columns layer and score, found {', '.join(found) or 'nothing'}.",
                "Tables are separated by commas, or by tabs in *.tsv.",
            )
        )
    rows.fieldnames = found
    scores: dict[int, float] = {}
    problems = []
    for row in rows:
        where = f"{path}: line {rows.line_num}"
        layer, score = _number(int, row["layer"]), _number(float, row["score"])
        if layer is None or score is None:
            values = f"{row['layer']!r}, {row['score']!r}"
            problems.append(Problem(where, f"expected a layer and its score, found {values}."))
        elif layer in scores:
            problems.append(Problem(where, f"layer {layer} stands in the table twice."))
        else:
            scores[layer] = score
    missing = sorted(set(range(len(scores))) - scores.keys())
    if not problems and missing:
        problems.append(
            Problem(
                str(path),
                f"expected the layers 0 to {len(scores) - 1}, found {sorted(scores)}.",
                "Every layer needs one row.",
            )
        )
    if problems:
        raise AlliageError(problems)
    return [scores[layer] for layer in sorted(scores)]


def _number(kind: type[Any], text: str | None) -> Any:
    try:
        return kind(text)
    except (TypeError, ValueError):
        return None
