from __future__ import annotations

import json
import shutil

from alliage.studies.results import read_table

CALIBRATE = "calibrate sentiment --task sentiment-data --repair temperature"


def test_a_repair_is_fitted_and_shown_beside_the_model(alliage, workspace):
    done = alliage(f"{CALIBRATE} -o sentiment/calibration.json")
    assert done.returncode == 0, done.stderr
    assert "before" in done.stdout
    done = alliage("evaluate sentiment --task sentiment-data -o results")
    assert done.returncode == 0, done.stderr
    assert "Check it on examples that it has not seen." in done.stderr
    scores = read_table(workspace / "results", "scores")
    assert set(scores["model"]) == {"sentiment", "sentiment+temperature"}
    comparisons = read_table(workspace / "results", "comparisons")
    assert set(comparisons["against"]) == {"sentiment"}
    ece = scores[scores["metric"] == "ece"].set_index("model")["value"]
    low, high = sorted(ece)
    # The same sentences under another split's name, so that the values are known.
    gate = "evaluate sentiment --task sentiment-data --split train -q --require 'ece<={}'"
    repaired_is_better = ece["sentiment+temperature"] == low
    done = alliage(gate.format((low + high) / 2))
    assert done.returncode == (0 if repaired_is_better else 3), done.stderr


def test_no_gate_on_calibration_where_the_repair_was_fitted(alliage):
    alliage(f"{CALIBRATE} -o sentiment/calibration.json")
    line = "evaluate sentiment --task sentiment-data --json -q --require"
    done = alliage(f"{line} 'ece<=1'")
    assert (done.returncode, done.stdout) == (2, "")
    assert "its repair was fitted on sentiment-data: validation itself" in done.stderr
    assert "Name another split with --split." in done.stderr
    done = alliage(f"{line} 'accuracy>=0'")  # what a repair may change, but was not fitted to
    assert done.returncode == 0
    (note,) = json.loads(done.stdout)["notes"]
    assert "fitted on sentiment-data: validation itself" in note
    # A reference need not meet the conditions, unless they are relative to it.
    against = "evaluate sentiment-lora --task sentiment-data --against sentiment --require"
    assert alliage(f"{against} 'ece<=1'").returncode == 0
    assert alliage(f"{against} 'ece<=base'").returncode == 2


def test_a_repair_of_other_weights_is_passed_over_and_this_is_said(alliage, workspace):
    alliage(f"{CALIBRATE} -o sentiment-lora.json".replace("sentiment ", "sentiment-lora ", 1))
    shutil.copy(workspace / "sentiment-lora.json", workspace / "sentiment" / "calibration.json")
    done = alliage("evaluate sentiment --task sentiment-data --json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [s["models"][0]["model"] for s in document["scores"]] == ["sentiment"]
    (note,) = document["notes"]
    assert note.startswith("sentiment/calibration.json: was fitted to other weights")
    assert "alliage calibrate sentiment --task TASK --repair temperature -o" in note
    assert note in done.stderr


def test_the_document_says_what_was_before_and_after(alliage, workspace):
    done = alliage(f"{CALIBRATE} -o repair.json --json")
    document = json.loads(done.stdout)
    assert set(document["before"]) == set(document["after"]) == {"accuracy", "ece", "smce", "pgap"}
    assert (document["examples"], document["split"]) == (8, "validation")
    line = "evaluate sentiment sentiment-lora --task sentiment-data --repair repair.json"
    done = alliage(f"{line} --json")
    assert done.returncode == 0, done.stderr
    models = [s["models"][0]["model"] for s in json.loads(done.stdout)["scores"]]
    assert models == ["sentiment", "sentiment+temperature", "sentiment-lora"]
    done = alliage(line.replace("sentiment ", "", 1))
    assert (done.returncode, done.stdout) == (2, "")
    assert "repair.json: was fitted to sentiment, whose weights none" in done.stderr
    done = alliage(f"{CALIBRATE} -o repair.json")
    assert (done.returncode, "exists already" in done.stderr) == (2, True)


def test_a_repair_goes_to_its_model_beside_a_reference(alliage):
    alliage(f"{CALIBRATE} -o repair.json")
    line = "evaluate sentiment --task sentiment-data --repair repair.json --json --against"
    done = alliage(f"{line} sentiment-lora --require 'accuracy>=0*base'")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    models = [s["models"][0]["model"] for s in document["scores"]]
    assert models == ["sentiment-lora", "sentiment", "sentiment+temperature"]
    assert {row["against"] for row in document["comparisons"]} == {"sentiment-lora"}
    assert alliage(f"{line} sentiment-lora --require 'accuracy>100*base'").returncode == 3


def test_a_file_of_no_repair_is_refused_in_plain_words(alliage, workspace):
    (workspace / "repair.json").write_text('{"labels": []}')
    done = alliage("evaluate sentiment --task sentiment-data --repair repair.json")
    assert done.returncode == 1
    expected = "alliage: repair.json: holds no repair. Fit it anew with alliage calibrate.\n"
    assert done.stderr == expected


def test_an_output_is_needed(alliage):
    done = alliage(CALIBRATE)
    assert (done.returncode, "Add -o FILE." in done.stderr) == (2, True)
