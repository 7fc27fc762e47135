from __future__ import annotations

from pathlib import Path

from alliage.report.sources import Source, find_sources, runs
from alliage.studies.results import write_table
from tests.report import conftest as made


def source(table: str, rows: int, command: str) -> Source:
    return Source(table, f"{table}-{rows}.parquet", rows, command, "", "")


def test_files_are_counted_by_command_and_table() -> None:
    sources = [
        source("models", 1, "evaluate a"), source("models", 2, "evaluate b"),
        source("models", 4, "evaluate a"), source("scores", 8, "evaluate a"),
    ]  # fmt: skip
    assert runs(sources) == {
        "evaluate a": [("models", 2, 5), ("scores", 1, 8)],
        "evaluate b": [("models", 1, 2)],
    }


def test_what_files_say_of_themselves(tmp_path: Path) -> None:
    models = made.models()
    write_table(tmp_path / "one", "models", models[:3], command="alliage evaluate one")
    write_table(tmp_path / "two", "models", models[3:])
    one, two = find_sources(tmp_path)
    assert (one.command, one.rows, one.file.split("/")[0]) == ("alliage evaluate one", 3, "one")
    assert (two.command, two.rows) == ("", len(models) - 3)
    assert one.sha256 != two.sha256
