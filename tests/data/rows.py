"""What a file's reader gives, for tests."""

from __future__ import annotations

from alliage.data.reading import Labels, first_record, read
from alliage.data.schemas import infer_columns
from alliage.data.sources import FileSource


def rows_of(path, kind="sequence-classification", columns=None, *, may_hide=False, **ways):
    """All rows of a file."""
    source = FileSource(path, **ways)
    columns = columns or infer_columns(kind, first_record(source), source.where)
    return list(read(source, columns, Labels(), may_hide=may_hide))
