"""The schema of each kind of task, and which kind the columns of a table speak for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

_SCHEMAS: Mapping[Kind, type[Columns]] = {
    "sequence-classification": TextColumns,
    "token-classification": TagColumns,
    "image-classification": ImageColumns,
    "regression": NumberColumns,
    "multiple-choice": ChoiceColumns,
    "text-generation": TargetColumns,
}


def infer_kind(record: Mapping[str, Any]) -> Kind:
    """The kind of a task by the columns of its first example.

    Texts with labels where nothing else fits; with numbers where the label is a fraction by its
    type.
    """
    for kind in ("token-classification", "image-classification", "multiple-choice"):
        if _SCHEMAS[kind].infer(record) is not None:
            return kind
    target = TargetColumns.infer(record)
    if LABEL not in record and target is not None and target.source is not None:
        return "text-generation"
    return "regression" if isinstance(record.get(LABEL), float) else "sequence-classification"


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
