from __future__ import annotations

import json

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
