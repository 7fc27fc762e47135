from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture
def alliage(family, tmp_path):
    """Run the command beside links to the models, away from their folder."""
    for model in ("base", "sentiment", "sentiment-lora"):
        (tmp_path / model).symlink_to(family / model)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from alliage.cli import main; main()", "prune"]
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_prunes_by_scores_from_a_file(alliage, tmp_path):
    (tmp_path / "scores.csv").write_text("layer,score\n0,0.2\n1,0.7\n")
    done = alliage(
        "sentiment", "--strategy", "best-n", "--keep", "1", "--scores", "scores.csv", "-o", "out"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out: layers 1 of 2, ")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 1


def test_json_is_all_of_stdout(alliage, tmp_path):
    done = alliage("sentiment", "--keep-layers", "0", "-o", "out", "--json")
    document = json.loads(done.stdout)
    assert document["plan"]["keep"] == [0]
    assert document["plan"]["remove"] == [1]
    assert document["run"]["bytes_written"] == document["plan"]["bytes_to_write"]
    assert document["run"]["out"] == "out"
    assert done.stderr == ""


def test_dry_run_shows_each_layer_and_writes_nothing(alliage, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    done = alliage("sentiment", "--keep-layers", "1", "--dry-run")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    # 4 (16·16 + 16) + 2·32 + (16·32 + 32) + (32·16 + 16) = 2224 float32
    assert ["0", "removed", "8.9", "kB"] in lines
    assert ["1", "0", "8.9", "kB"] in lines
    assert "1 of 2 layers stay" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code", "messages"),
    [
        (["sentiment", "--keep-layers", "0"], 2, ["no output folder given"]),
        (["sentiment", "--keep-layers", "0;1", "-o", "x"], 2, ["'0;1' is no list of layers"]),
        (["sentiment", "--keep-layers", "4", "-o", "base"], 2, ["no layer 4", "exists already"]),
        (["sentiment", "-o", "x"], 2, ["strategy: missing", "2 problems"]),
        (["sentimnt", "--keep-layers", "0", "-o", "x"], 2, ["Did you mean 'sentiment'"]),
        (["sentiment-lora", "--keep-layers", "0", "-o", "x"], 1, ["is an adapter"]),
    ],
)
def test_refusals_name_the_reason_and_leave_nothing(alliage, tmp_path, arguments, code, messages):
    before = sorted(path.name for path in tmp_path.iterdir())
    done = alliage(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for message in messages:
        assert message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
