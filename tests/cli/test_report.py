from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alliage.studies.results import read_table, write_table
from tests.report.conftest import scores
from tests.report.page import Page


@pytest.fixture
def alliage(tmp_path: Path):
    """Run a command in a folder that holds `results` with a table of scores."""
    write_table(tmp_path / "results", "scores", scores(), command="alliage evaluate …")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from alliage.cli import main; main()"]
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_writes_the_report_and_says_where(alliage, tmp_path):
    done = alliage("report", "results", "-o", "report.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "report.html\n"
    assert "open it in a browser" in done.stderr
    assert "alliage evaluate …" in (tmp_path / "report.html").read_text()


def test_json(alliage, tmp_path):
    done = alliage("report", "results", "-o", "report.html", "--json", "-q")
    size = (tmp_path / "report.html").stat().st_size
    assert json.loads(done.stdout) == {"report": "report.html", "bytes": size}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("folder", "words"), [("nowhere", "no such folder"), ("empty", "found no rows")]
)
def test_nothing_to_report_is_a_usage_error(alliage, tmp_path, folder, words):
    (tmp_path / "empty").mkdir()
    done = alliage("report", folder, "-o", "report.html")
    assert done.returncode == 2
    assert words in done.stderr
    assert "alliage evaluate" in done.stderr
    assert not (tmp_path / "report.html").exists()


def test_reports_what_compare_wrote(alliage, family, tmp_path):
    models = [str(family / name) for name in ("sentiment", "topics", "sentiment-lora")]
    done = alliage("compare", "--base", str(family / "base"), *models, "-o", "compared")
    assert done.returncode == 0, done.stderr
    done = alliage("report", "compared", "-o", "report.html")
    assert done.returncode == 0, done.stderr
    page = Page((tmp_path / "report.html").read_text())
    table = read_table(tmp_path / "compared", "distances")
    shown = {
        (row["metric"], row["first"], row["second"]): row["value"]
        for row in page.rows("heat-map")
        if row["modules"] == "all modules"
    }
    means = table.groupby(["metric", "first", "second"])["value"].mean()
    assert shown.keys() == {(metric, *sorted(pair)) for metric, *pair in means.index}
    for (metric, *pair), mean in means.items():
        assert shown[metric, *sorted(pair)] == pytest.approx(mean, rel=1e-12)
    assert "alliage compare --base" in page.text
