"""alliage forecast, run as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from alliage.studies.results import read_table

FULL = "alliage forecast --base base sentiment topics"
DATA = "--task sentiment-data --task topics-data"


def test_with_answers_it_says_points_intervals_and_groups(alliage, workspace):
    done = alliage(f"{FULL} {DATA} -o results")
    assert done.returncode == 0, done.stderr
    assert "average: points lost" in done.stdout
    assert " ± " in done.stdout
    assert "Least expected loss by average" in done.stdout
    assert "sentiment 8, topics 9" in done.stderr
    table = read_table(workspace / "results", "forecast")
    assert sorted(table["task"]) == ["sentiment", "topics"]
    assert (table["low"] < table["loss"]).all()
    assert (table["loss"] < table["high"]).all()


def test_labels_are_not_looked_at(alliage, workspace):
    first = json.loads(alliage(f"{FULL} {DATA} --json -q").stdout)
    for task in ("sentiment-data", "topics-data"):
        path = workspace / task / "validation.tsv"
        head, *rows = path.read_text().splitlines()
        labels = [row.split("\t")[1] for row in rows]
        turned = [
            f"{row.split(chr(9))[0]}\t{label}"
            for row, label in zip(rows, labels[1:] + labels[:1], strict=True)
        ]
        path.write_text("\n".join([head, *turned]) + "\n")
    again = json.loads(alliage(f"{FULL} {DATA} --json -q").stdout)
    assert again["forecast"] == first["forecast"]


def test_outside_of_what_was_learned_it_tells_predictors_and_exits_with_3(alliage):
    done = alliage("alliage forecast --base base sentiment-lora topics-lora")
    assert done.returncode == 3
    assert "predictors, no forecast" in done.stdout
    assert "all.lost" in done.stdout
    assert "No forecast for" in done.stdout
    assert "learned from" in done.stdout


def test_json_is_all_of_stdout(alliage):
    done = alliage("alliage forecast --base base sentiment topics --json -q")
    document = json.loads(done.stdout)
    assert document["needs"] == "weights"
    assert done.stderr == ""
    assert document["forecast"][0]["loss"] is None
    assert document["forecast"][0]["refused"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method tiess", "no forecast was learned for it"),
        ("--task sentiment-data", "1 for 2 models"),
        (f"{DATA} --examples 3", "must be 16 or more"),
        (f"{DATA} --method lora_svd", "makes no single model in memory"),
        (f"{DATA} --split dev", "no such split"),
        ("--task topics-data --task sentiment-data", "topics"),
    ],
)
def test_bad_input(alliage, words, said):
    done = alliage(f"{FULL} {words}")
    assert done.returncode in (1, 2)
    assert said in done.stderr


def test_a_single_model_is_refused(alliage):
    done = alliage("alliage forecast --base base sentiment")
    assert done.returncode == 2
    assert "expected two or more" in done.stderr


def test_the_page_of_the_documentation_runs(alliage, workspace, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "forecast.md").read_text()
    shell, python, _ = re.findall(r"```(?:sh|python)\n(.*?)```", page, re.DOTALL)
    first, second = shell.splitlines()
    assert alliage(first).returncode == 0
    assert alliage(second).returncode == 3  # the models are far smaller than what was learned from
    monkeypatch.chdir(workspace)
    exec(compile(python, "forecast.md", "exec"), {})
    assert "Least expected loss" in capsys.readouterr().out
