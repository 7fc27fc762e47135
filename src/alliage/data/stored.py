"""Files larger than memory: read once into an Arrow file, which is mapped and read by index.

The Arrow file lies in Alliage's cache under the name of what it was made from; a source that
changed makes a new one in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from alliage.checkpoints.digests import cache_folder
from alliage.data.columns import Columns
from alliage.data.files import Row
from alliage.data.reading import Labels, read
from alliage.data.sources import Source
from alliage.data.task import Kind
from alliage.errors import AlliageError, Problem

_BATCH = 1024  # examples
_VERSION = 2  # of the stored form


def read_stored(
    source: Source,
    identity: Sequence[Any],
    kind: Kind,
    columns: Columns,
    labels: Labels,
    *,
    may_hide: bool,
) -> Sequence[Row]:
    """The examples of a source, through the cache; the rest as in `reading.read`.

    Args:
        source: where they are.
        identity: of the source, from `stored_as`.
        kind: of the task.
        columns: which of them hold what.
        labels: that occur, to be counted.
        may_hide: whether labels may be missing altogether.

    Raises:
        AlliageError: as `reading.read`, or a cache that cannot be written.
    """
    path = _cached(identity, kind, columns, may_hide)
    note = path.with_suffix(".json")
    if not path.exists() or not note.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = read(source, columns, labels, may_hide=may_hide)
            _store(rows, kind, path, note, labels)
        except OSError as error:
            what = f"cannot be written: {error.strerror}."
            fix = "Name a folder with room in the variable ALLIAGE_CACHE."
            raise AlliageError(Problem(str(path.parent), what, fix)) from None
    labels.places = {
        name: (count, place) for name, count, place in json.loads(note.read_text(encoding="utf-8"))
    }
    return StoredRows(path)


class StoredRows(Sequence[Row]):
    """The rows of an Arrow file, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._length = self._file[1]

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(self._length)[index]
        batch = self._file[0].get_batch(place // _BATCH)
        inputs, label, domain = (column[place % _BATCH].as_py() for column in batch.columns)
        return Row("", _thawed(inputs), _thawed(label), domain)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    @cached_property
    def _file(self) -> tuple[Any, int]:
        import pyarrow as pa

        reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        batches = reader.num_record_batches
        last = reader.get_batch(batches - 1).num_rows if batches else 0
        return reader, max(0, batches - 1) * _BATCH + last


def _cached(identity: Sequence[Any], kind: Kind, columns: Columns, may_hide: bool) -> Path:
    """Where the examples of a source are, as it is now and read in this way."""
    which, *state = identity
    way = [which, kind, columns.model_dump(mode="json"), may_hide]
    names = [
        hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
        for what in (way, [*state, _VERSION])
    ]
    return cache_folder() / "data" / f"{'-'.join(names)}.arrow"


def _store(rows: Iterator[Row], kind: Kind, path: Path, note: Path, labels: Labels) -> None:
    import pyarrow as pa

    draft = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    schema = _schema(kind)
    try:
        with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            batch: list[dict[str, Any]] = []
            for row in rows:
                inputs = _frozen(row.inputs, kind)
                batch.append({"inputs": inputs, "label": row.label, "domain": row.domain})
                if len(batch) == _BATCH:
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
                    batch = []
            if batch:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
        source = path.name.partition("-")[0]
        for old in (*path.parent.glob(f"{source}-*.arrow"), *path.parent.glob(f"{source}-*.json")):
            old.unlink(missing_ok=True)  # of the source as it was
        places = [[name, *seen] for name, seen in labels.places.items()]
        note.write_text(json.dumps(places), encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _schema(kind: Kind) -> Any:
    import pyarrow as pa

    texts, text = pa.list_(pa.string()), pa.string()
    inputs = {
        "image-classification": pa.struct({"path": text, "bytes": pa.binary()}),
        "multiple-choice": pa.struct({"prompt": text, "choices": texts}),
    }
    labels = {
        "token-classification": texts,
        "regression": pa.float64(),
        "multiple-choice": pa.int64(),
    }
    return pa.schema(
        {"inputs": inputs.get(kind, texts), "label": labels.get(kind, text), "domain": text}
    )


def _frozen(inputs: Any, kind: Kind) -> Any:
    if kind == "image-classification":
        return {"bytes" if isinstance(inputs, bytes) else "path": inputs}
    if kind == "multiple-choice":
        return {"prompt": inputs[0], "choices": inputs[1]}
    return inputs


def _thawed(value: Any) -> Any:
    if isinstance(value, dict) and "choices" in value:
        return value["prompt"], tuple(value["choices"])
    if isinstance(value, dict):
        return value["path"] or value["bytes"]
    return tuple(value) if isinstance(value, list) else value
