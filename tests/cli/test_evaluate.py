from __future__ import annotations

import inspect
import json
import shutil

import numpy as np
import pytest

from alliage.cli.evaluate import evaluate
from alliage.studies.results import read_table


def test_writes_results_and_prints_tables(alliage, workspace):
    done = alliage("evaluate sentiment sentiment-lora --task sentiment-data -o results")
    assert done.returncode == 0, done.stderr
    assert "scores on validation" in done.stdout
    models = read_table(workspace / "results", "models").set_index("model")
    assert set(models.index) == {"sentiment", "sentiment-lora"}
    scores = read_table(workspace / "results", "scores")
    assert set(scores["task"]) == {"sentiment-data"}
    assert set(scores["examples"]) == {8}
    intervals = read_table(workspace / "results", "intervals")
    joined = scores.merge(intervals, on=["model", "task", "metric"])
    assert set(joined["metric"]) >= {"accuracy", "f1", "matthews"}
    assert ((joined["low"] <= joined["value"]) & (joined["value"] <= joined["high"])).all()
    comparisons = read_table(workspace / "results", "comparisons")
    assert set(comparisons["model"]) == {"sentiment-lora"}
    assert set(comparisons["against"]) == {"sentiment"}
    assert "difference to sentiment" in done.stdout


def test_a_reference_is_compared_with_and_shown(alliage):
    line = "evaluate sentiment-lora --task sentiment-data --against sentiment --json"
    document = json.loads(alliage(line).stdout)
    assert [s["models"][0]["model"] for s in document["scores"]] == ["sentiment", "sentiment-lora"]
    assert {row["against"] for row in document["comparisons"]} == {"sentiment"}
    alone = json.loads(alliage("evaluate sentiment --task sentiment-data --json").stdout)
    assert alone["comparisons"] == []


def test_a_model_is_left_out_of_tasks_it_has_no_head_for_and_this_is_said(alliage):
    line = "evaluate sentiment topics --task sentiment-data --task topics-data --json"
    done = alliage(line)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    pairs = {(row["model"], row["task"]) for s in document["scores"] for row in s["scores"]}
    assert pairs == {("sentiment", "sentiment-data"), ("topics", "topics-data")}
    assert len(document["left_out"]) == 2
    assert done.stderr.count("left out:") == 2
    assert alliage(line + " -q").stderr == ""


def test_a_model_that_fits_no_task_fails_after_the_others_are_shown(alliage):
    done = alliage("evaluate sentiment base --task sentiment-data")
    assert done.returncode == 1
    assert "alliage: base: has no head" in done.stderr
    assert "sentiment-data" in done.stdout


def test_of_tasks_with_the_same_labels_a_model_answers_its_own(alliage, workspace):
    shutil.copytree(workspace / "sentiment-data", workspace / "reviews")
    shutil.copytree(workspace / "sentiment", workspace / "tuned")
    (workspace / "tuned" / "alliage.json").write_text(
        json.dumps({"command": "tune", "task": "reviews", "labels": ["negative", "positive"]})
    )

    def scored(options):
        document = json.loads(alliage(f"evaluate tuned --json {options}").stdout)
        return [row["task"] for row in document["scores"][0]["scores"]], document["left_out"]

    both = "--task sentiment-data --task reviews"
    tasks, left_out = scored(both)
    assert set(tasks) == {"reviews"}
    assert "tuned on sentiment-data: the model was made for reviews." in left_out[0]
    assert set(scored(f"{both} --cross")[0]) == {"reviews", "sentiment-data"}
    # A single task is asked for on purpose.
    assert set(scored("--task sentiment-data")[0]) == {"sentiment-data"}


def test_wrong_names_get_the_nearest(alliage):
    done = alliage("evaluate sentiment --task sentiment-dat")
    assert (done.returncode, "Did you mean 'sentiment-data'" in done.stderr) == (2, True)
    done = alliage("evaluate sentiment --task sentiment-data --split valid")
    assert (done.returncode, "Did you mean 'validation'" in done.stderr) == (2, True)
    assert done.stdout == ""


def test_a_merge_is_evaluated_with_its_parents_heads(alliage):
    assert alliage("merge merge.yml -o merged").returncode == 0
    done = alliage("evaluate merged --task topics-data --head topics --json")
    assert done.returncode == 0, done.stderr
    (scores,) = json.loads(done.stdout)["scores"]
    assert (scores["models"][0]["role"], scores["models"][0]["method"]) == ("merged", "ties")
    done = alliage("evaluate merged --task topics-data")
    assert done.returncode == 1
    assert "Name the one to use with --head." in done.stderr


def accuracy(alliage):
    done = alliage("evaluate sentiment --task sentiment-data --json")
    (scores,) = json.loads(done.stdout)["scores"]
    return next(row["value"] for row in scores["scores"] if row["metric"] == "accuracy")


def test_a_gate_says_no_with_3_after_the_tables(alliage):
    reached = accuracy(alliage)
    line = "evaluate sentiment --task sentiment-data --require"
    met = alliage(f"{line} 'accuracy>={reached}' --require 'ece<=1'")
    assert (met.returncode, met.stderr) == (0, "")
    done = alliage(f"{line} 'accuracy>{reached}' --require 'ece<0'")
    assert done.returncode == 3
    assert f"sentiment on sentiment-data: accuracy is {reached:.4f}, required >" in done.stderr
    assert "2 problems" in done.stderr
    assert "scores on validation" in done.stdout


def test_a_gate_may_be_relative_to_a_reference(alliage):
    line = "evaluate sentiment-lora --task sentiment-data --against sentiment --require"
    assert alliage(f"{line} 'accuracy>=0*base'").returncode == 0
    done = alliage(f"{line} 'accuracy>100*base'")
    assert done.returncode == 3
    assert "sentiment on" not in done.stderr  # the reference itself need not meet it
    done = alliage("evaluate sentiment --task sentiment-data --require 'accuracy>=0.9*base'")
    assert (done.returncode, "Name it with --against." in done.stderr) == (2, True)


def test_a_wrong_condition_stops_before_any_model_is_opened(alliage):
    done = alliage("evaluate nowhere --task sentiment-data --require 'acuracy>=0.9'")
    assert done.returncode == 2
    assert "no such metric. Did you mean 'accuracy'" in done.stderr
    assert "nowhere" not in done.stderr


def test_speed_is_measured_for_one_example_and_for_a_batch(alliage, workspace):
    line = "evaluate sentiment --task sentiment-data --speed --batch-size 4 -o results"
    done = alliage(line)
    assert done.returncode == 0, done.stderr
    assert "speed on cpu" in done.stdout
    table = read_table(workspace / "results", "speed")
    assert table["batch"].tolist() == [1, 4]
    assert (table["low"] <= table["median"]).all()
    assert (table["median"] <= table["high"]).all()
    np.testing.assert_allclose(table["throughput"], table["batch"] / table["median"])
    assert (table["passes"] >= 5).all()


def test_calibration_in_detail(alliage, workspace):
    line = "evaluate sentiment sentiment-lora --task sentiment-data --calibration -o results"
    done = alliage(f"{line} --require 'lower_distance<=1'")
    assert done.returncode == 0, done.stderr
    assert "where calibrated models lie" in done.stdout
    table = read_table(workspace / "results", "calibration")
    measures = ["ece", "smce", "pgap", "dual_smce", "dual_pgap", "lower_distance"]
    assert table["metric"].tolist() == measures * 2
    assert table["chance_high"].isna().tolist() == [*[False] * 5, True] * 2
    compared = set(read_table(workspace / "results", "comparisons")["metric"])
    assert {"ece", "smce", "pgap"} <= compared
    done = alliage("evaluate sentiment --task sentiment-data --require 'lower_distance<=1'")
    assert (done.returncode, "Add --calibration." in done.stderr) == (2, True)


def test_a_gate_on_the_worst_domain(alliage, workspace):
    rows = [
        line.split("\t")
        for line in (workspace / "sentiment-data" / "validation.tsv").read_text().splitlines()
    ]
    table = [[*rows[0], "place"], *([*row, "ab"[n % 2]] for n, row in enumerate(rows[1:]))]
    (workspace / "places.tsv").write_text("".join("\t".join(row) + "\n" for row in table))
    (workspace / "places.yml").write_text(
        "kind: sequence-classification\n"
        "files: {train: places.tsv, validation: places.tsv}\n"
        f"columns: {{text: {rows[0][0]}, domain: place}}\n"
    )
    line = "evaluate sentiment --task places.yml --calibration -o results"
    done = alliage(f"{line} --require 'smce_worst_domain<=0'")
    assert done.returncode == 3, done.stderr
    assert "calibration by domain" in done.stdout
    found = read_table(workspace / "results", "calibration_domains")
    assert found["domain"].tolist() == ["a", "b"] * 3
    scores = read_table(workspace / "results", "scores").set_index("metric")["value"]
    smce = found[found["metric"] == "smce"]["value"]
    assert scores["smce_worst_domain"] == smce.max()
    line = "evaluate sentiment --task sentiment-data --require 'smce_worst_domain<=1'"
    for more, said in (("--calibration", "none of the tasks tells domains"), ("", "Add --calib")):
        done = alliage(f"{line} {more}")
        assert (done.returncode, said in done.stderr) == (2, True)


def folders_of_one_name(workspace):
    for run, model in (("run1", "sentiment"), ("run2", "sentiment-lora")):
        (workspace / run).mkdir()
        shutil.copytree(workspace / model, workspace / run / "final")
    settings = workspace / "run2" / "final" / "adapter_config.json"
    content = json.loads(settings.read_text()) | {"base_model_name_or_path": "base"}
    settings.write_text(json.dumps(content))


def test_models_in_folders_of_one_name_are_told_apart(alliage, workspace):
    folders_of_one_name(workspace)
    done = alliage("evaluate run1/final run2/final --task sentiment-data -o results")
    assert done.returncode == 0, done.stderr
    both = {"run1/final", "run2/final"}
    assert set(read_table(workspace / "results", "scores")["model"]) == both
    comparisons = read_table(workspace / "results", "comparisons")
    assert set(comparisons["model"]) == {"run2/final"}
    assert set(comparisons["against"]) == {"run1/final"}
    header = next(line for line in done.stdout.splitlines() if line.strip().startswith("metric"))
    assert both <= set(header.split())


def test_a_model_named_twice_is_scored_once_and_not_judged_against_itself(alliage):
    line = "evaluate sentiment ./sentiment sentiment-lora --task sentiment-data --against"
    done = alliage(f"{line} ./sentiment --require 'accuracy>100*base' --json")
    assert done.returncode == 3
    models = [s["models"][0]["model"] for s in json.loads(done.stdout)["scores"]]
    assert models == ["sentiment", "sentiment-lora"]
    assert done.stderr.count("required >") == 1
    assert "sentiment-lora on sentiment-data: accuracy is" in done.stderr
    assert alliage(f"{line} sentiment --require 'accuracy>=2'").stderr.count("required >=") == 2
    alone = "evaluate sentiment --task sentiment-data --against ./sentiment --require"
    done = alliage(f"{alone} 'accuracy>=0.9*base'")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is the only model" in done.stderr


def test_a_results_folder_that_is_a_file_is_named_once(alliage):
    done = alliage("evaluate sentiment --task sentiment-data -o sentiment/config.json")
    assert done.returncode == 2
    assert done.stderr.startswith("alliage: sentiment/config.json: is a file; expected a folder")


@pytest.fixture
def hidden(workspace):
    """A task whose test split has no labels."""
    task = workspace / "hidden"
    shutil.copytree(workspace / "sentiment-data", task)
    (task / "test.tsv").write_text("sentence\nthe film\na book\n")
    return task


def test_a_split_without_labels_is_left_out_and_this_is_said(alliage, hidden, workspace):
    (workspace / "sentiment-data" / "test.tsv").write_bytes(
        (workspace / "sentiment-data" / "validation.tsv").read_bytes()
    )
    both = "evaluate sentiment --task hidden --task sentiment-data --split test"
    done = alliage(both)
    assert done.returncode == 0, done.stderr
    assert "left out: hidden: test: has no labels: nothing to score." in done.stderr
    done = alliage(f"{both} --require 'accuracy>=0'")
    assert done.returncode == 3
    assert "alliage: hidden: no model was scored on it" in done.stderr
    assert alliage(f"{both.replace('--task hidden', '')} --require 'accuracy>=0'").returncode == 0
    done = alliage("evaluate sentiment --task hidden --split test")
    assert (done.returncode, done.stdout) == (1, "")
    assert "alliage: hidden: test: has no labels" in done.stderr


def test_a_model_of_a_stored_ones_name_gets_a_name_of_its_own(alliage, workspace):
    folders_of_one_name(workspace)
    for model in ("run1/final", "run2/final", "run1/final"):
        assert alliage(f"evaluate {model} --task sentiment-data -o results").returncode == 0
    models = read_table(workspace / "results", "models").set_index("path")["model"]
    assert models.to_dict() == {"run1/final": "final", "run2/final": "run2/final"}


def test_paragraphs_of_the_help_have_no_line_breaks_of_their_own():
    paragraphs = (inspect.getdoc(evaluate) or "").split("\n\n")
    assert len(paragraphs) > 1
    assert not any("\n" in paragraph for paragraph in paragraphs)
