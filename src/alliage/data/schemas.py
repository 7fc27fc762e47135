"""The schema of each kind of task, and which kind the columns of a table speak for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from alliage.data.columns import (
    LABEL,
    Columns,
    ImageColumns,
    NumberColumns,
    TagColumns,
    TextColumns,
)
from alliage.data.prompts import ChoiceColumns, TargetColumns
from alliage.data.task import Kind
from alliage.errors import AlliageError, Problem

_DECIMAL = re.compile(r"[-+]?[0-9]*\.[0-9]+")
_SCHEMAS: Mapping[Kind, type[Columns]] = {
    "sequence-classification": TextColumns,
    "token-classification": TagColumns,
    "image-classification": ImageColumns,
    "regression": NumberColumns,
    "multiple-choice": ChoiceColumns,
    "text-generation": TargetColumns,
}


def infer_kind(record: Mapping[str, Any], records: Iterable[Mapping[str, Any]] = ()) -> Kind:
    """The kind of a task by the columns of its first example.

    Texts with labels where nothing else fits; with numbers where the label is a fraction by its
    type, or where the labels are texts of which every one is a decimal number with a point and
    not all are whole (0.00, 0.14, …). Classes of such names need a YAML file that says the kind.

    Args:
        record: the first example.
        records: all examples; gone through only where the first label is such a text.
    """
    for kind in ("token-classification", "image-classification", "multiple-choice"):
        if _SCHEMAS[kind].infer(record) is not None:
            return kind
    target = TargetColumns.infer(record)
    if LABEL not in record and target is not None and target.source is not None:
        return "text-generation"
    label = record.get(LABEL)
    numbers = isinstance(label, float) or (_is_decimal(label) and _are_fractions(records))
    return "regression" if numbers else "sequence-classification"


def _is_decimal(label: Any) -> bool:
    return isinstance(label, str) and _DECIMAL.fullmatch(label.strip()) is not None


def _are_fractions(records: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all labels are decimal numbers, and one at least no whole one."""
    fraction = False
    for record in records:
        label = record.get(LABEL)
        if not _is_decimal(label):
            return False
        fraction = fraction or not float(str(label)).is_integer()
    return fraction


def infer_columns(kind: Kind, names: Collection[str], where: str) -> Columns:
    """The columns of a kind of task by their usual names.

    Raises:
        AlliageError: none of such names.
    """
    columns = _SCHEMAS[kind].infer(names)
    if columns is None:
        what = f"among its columns {sorted(names)} are no {_SCHEMAS[kind].usual}."
        raise AlliageError(Problem(where, what, "Write a YAML file that names the columns."))
    return columns
