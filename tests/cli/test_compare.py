from __future__ import annotations

import json
import subprocess
import sys

import pytest

from alliage.studies.results import read_table


@pytest.fixture
def alliage(family, tmp_path):
    """Run the command beside links to the models, away from their folder."""
    for model in ("base", "sentiment", "topics", "sentiment-lora", "topics-lora"):
        (tmp_path / model).symlink_to(family / model)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from alliage.cli import main; main()", "compare"]
        return subprocess.run(
            [*command, "--base", "base", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_prints_a_matrix_and_a_finding_for_each_metric(alliage):
    done = alliage("sentiment-lora", "topics-lora", "sentiment", "--modules", "q,v")
    assert done.returncode == 0, done.stderr
    for metric in ("l2", "cosine", "geodesic"):
        assert f"{metric}, mean over 4 modules" in done.stdout
        assert f"{metric}: nearest " in done.stdout
    assert "random subspaces" in done.stdout
    assert done.stderr.startswith("note: 35 of 39 parameters")


def test_writes_the_results_table(alliage, tmp_path):
    done = alliage(
        "sentiment", "topics", "--metrics", "l2,cosine", "--by", "layer", "-o", "results"
    )
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "results", "distances")
    assert sorted(table["metric"].unique()) == ["cosine", "l2"]
    assert sorted(table["layer"].unique()) == [-1, 0, 1]
    assert "Wrote results/distances-" in done.stderr


def test_json_is_all_of_stdout(alliage):
    done = alliage("base", "topics", "--metrics", "geodesic", "--last-layers", "1", "--json", "-q")
    document = json.loads(done.stdout)
    assert document["models"] == ["base", "topics"]
    assert document["metrics"]["geodesic"]["mean"][0][1] is None  # base does not differ
    assert document["distances"] == []
    assert done.stderr == ""


def test_wrong_names_get_the_nearest_ones(alliage, tmp_path):
    done = alliage("sentiment", "topics", "--metrics", "cosin", "--modules", "valeu", "-o", "out")
    assert done.returncode == 2
    assert "Did you mean 'cosine'" in done.stderr
    assert "Did you mean 'value'" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()
