from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alliage.studies.results import write_table
from tests.report.conftest import scores


@pytest.fixture
def alliage(tmp_path: Path):
    """Run the command in a folder that holds `results` with a table of scores."""
    write_table(tmp_path / "results", "scores", scores(), command="alliage evaluate …")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from alliage.cli import main; main()", "report"]
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_writes_the_report_and_says_where(alliage, tmp_path):
    done = alliage("results", "-o", "report.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("report.html (")
    assert "alliage evaluate …" in (tmp_path / "report.html").read_text()


def test_json(alliage, tmp_path):
    done = alliage("results", "-o", "report.html", "--json", "-q")
    size = (tmp_path / "report.html").stat().st_size
    assert json.loads(done.stdout) == {"report": "report.html", "bytes": size}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("folder", "words"), [("nowhere", "no such folder"), ("empty", "found no rows")]
)
def test_nothing_to_report_is_a_usage_error(alliage, tmp_path, folder, words):
    (tmp_path / "empty").mkdir()
    done = alliage(folder, "-o", "report.html")
    assert done.returncode == 2
    assert words in done.stderr
    assert "alliage evaluate" in done.stderr
    assert not (tmp_path / "report.html").exists()
