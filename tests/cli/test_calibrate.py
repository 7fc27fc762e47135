from __future__ import annotations

import json

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
    gate = f"evaluate sentiment --task sentiment-data --require 'ece<={(low + high) / 2}'"
    repaired_is_better = ece["sentiment+temperature"] == low
    assert alliage(gate).returncode == (0 if repaired_is_better else 3)


def test_the_document_says_what_was_before_and_after(alliage, workspace):
    done = alliage(f"{CALIBRATE} -o repair.json --json")
    document = json.loads(done.stdout)
    assert set(document["before"]) == set(document["after"]) == {"accuracy", "ece", "smce", "pgap"}
    assert (document["examples"], document["split"]) == (8, "validation")
    line = "evaluate sentiment sentiment-lora --task sentiment-data --repair repair.json"
    done = alliage(line)
    assert done.returncode == 2
    assert "sentiment-lora: the repair was fitted to other weights" in done.stderr
    done = alliage(f"{CALIBRATE} -o repair.json")
    assert (done.returncode, "exists already" in done.stderr) == (2, True)


def test_an_output_is_needed(alliage):
    done = alliage(CALIBRATE)
    assert (done.returncode, "Add -o FILE." in done.stderr) == (2, True)
