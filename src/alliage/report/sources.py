"""The results files behind a report: which commands made them, how many rows, which bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alliage.checkpoints.digests import sha256
from alliage.studies.results import TABLES, table_files


@dataclass(frozen=True, slots=True)
class Source:
    """One Parquet file of a results folder.

    Attributes:
        table: which table it is part of.
        file: relative to the folder.
        rows: their number.
        command: the command that made it, empty where it was not recorded.
        sha256: of its bytes, in hexadecimal.
        writer: the library that wrote it, with its version.
    """

    table: str
    file: str
    rows: int
    command: str
    sha256: str
    writer: str


def find_sources(folder: Path) -> list[Source]:
    """Every readable results file in the folder and below it, by table and name."""
    import pyarrow.parquet as pq

    found = []
    for table in TABLES:
        for path in table_files(folder, table):
            header = pq.read_metadata(path)
            command = (header.metadata or {}).get(b"alliage.command", b"").decode()
            file = path.relative_to(folder).as_posix()
            found.append(
                Source(table, file, header.num_rows, command, sha256(path), header.created_by or "")
            )
    return found


class Part(NamedTuple):
    """What one command wrote of one table."""

    table: str
    files: int
    rows: int


def runs(sources: Sequence[Source]) -> dict[str, list[Part]]:
    """Command -> what it wrote, both in the order of the sources."""
    found: dict[str, dict[str, Part]] = {}
    for one in sources:
        parts = found.setdefault(one.command, {})
        before = parts.get(one.table, Part(one.table, 0, 0))
        parts[one.table] = Part(one.table, before.files + 1, before.rows + one.rows)
    return {command: list(parts.values()) for command, parts in found.items()}


def commands_of(tables: Sequence[str], sources: Sequence[Source]) -> list[str]:
    """The commands that made these tables, each once."""
    made = {source.command: None for source in sources if source.table in tables and source.command}
    return list(made)
