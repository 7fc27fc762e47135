"""Tables as Parquet files with a unit for each column and words about the whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alliage.errors import AlliageError, Problem

if TYPE_CHECKING:
    import pandas as pd

Columns = Mapping[str, tuple[str, str]]  # name -> (type, unit or meaning)


def write(
    path: Path,
    columns: Columns,
    content: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
    about: Mapping[str, str],
) -> None:
    """Write one table; the file appears only when complete.

    Args:
        path: the file, in a folder that exists.
        columns: of the table, in order.
        content: rows, or columns of one length.
        about: texts kept in the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            pa.field(name, pa.type_for_alias(kind), metadata={"unit": unit})
            for name, (kind, unit) in columns.items()
        ],
        metadata=dict(about),
    )
    make = pa.Table.from_pydict if isinstance(content, Mapping) else pa.Table.from_pylist
    table = make(dict(content) if isinstance(content, Mapping) else list(content), schema=schema)
    partial = path.parent / f".{path.name}.{os.getpid()}"
    pq.write_table(table, partial)
    partial.replace(path)


def read(path: Path) -> tuple[pd.DataFrame, dict[str, str], dict[str, str]]:
    """The table, the texts about it and the unit of each column.

    Raises:
        AlliageError: no such file, or no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise AlliageError(Problem(str(path), f"is no readable Parquet file: {error}")) from None
    texts = {
        key.decode(): value.decode()
        for key, value in (table.schema.metadata or {}).items()
        if key != b"pandas"
    }
    units = {
        field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in table.schema
    }
    return table.to_pandas(), texts, units
