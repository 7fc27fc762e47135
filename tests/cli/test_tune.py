from __future__ import annotations

import json


def test_tunes_and_the_result_is_evaluated_and_verified(alliage):
    done = alliage("tune tune.yml -o tuned --json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["task"], document["method"], document["steps"]) == (
        "sentiment-data",
        "full",
        1,
    )
    assert done.stderr == ""
    done = alliage("evaluate tuned --task sentiment-data --json")
    assert json.loads(done.stdout)["scores"][0]["models"][0]["role"] == "single"
    assert alliage("verify tuned").returncode == 0


def test_a_wrong_recipe_is_a_usage_error(alliage, workspace):
    path = workspace / "tune.yml"
    path.write_text(path.read_text() + "epoch: 3\nlora: {rank: 2}\n")
    done = alliage("tune tune.yml -o tuned")
    assert done.returncode == 2
    assert "tune.yml: unknown key epoch. Did you mean 'epochs'" in done.stderr
    assert not (workspace / "tuned").exists()
