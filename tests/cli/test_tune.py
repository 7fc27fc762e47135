from __future__ import annotations

import json

# BERT of 2 layers, width 16: embeddings, layers, a head of two labels; counted by hand below.
EMBEDDINGS = (23 + 32 + 2) * 16 + 2 * 16
LAYER = 4 * (16 * 16 + 16) + 2 * 16 + (16 * 32 + 32) + (32 * 16 + 16) + 2 * 16
TRAINED = EMBEDDINGS + 2 * LAYER + (16 * 16 + 16) + (2 * 16 + 2)


def test_tunes_and_the_result_is_evaluated_and_verified(alliage, workspace):
    done = alliage("tune tune.yml -o tuned --json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["task"], document["method"], document["steps"]) == (
        "sentiment-data",
        "full",
        1,
    )
    assert done.stderr == ""
    assert document["parameters_trained"] == document["parameters"] == TRAINED
    assert document["peak_memory_bytes"] > 10**7
    with (workspace / "tuned" / "training.json").open() as file:
        assert json.load(file) == {key: document[key] for key in document if key != "out"}
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


def test_a_preset_is_named_on_the_command_line_and_the_recipes_keys_win(alliage, workspace):
    done = alliage("tune tune.yml --preset fosse-2024 -o tuned --json")
    document = json.loads(done.stdout)
    assert document["steps"] == 1  # the recipe's one epoch of 8 examples, in a batch of 20
    assert len(document["validation"]) == 1  # patience is the preset's
    with (workspace / "tuned" / "alliage.json").open() as file:
        recipe = json.load(file)["recipe"]
    chosen = {key: recipe[key] for key in ("preset", "batch_size", "learning_rate", "patience")}
    assert chosen == {
        "preset": "fosse-2024", "batch_size": 20, "learning_rate": 1e-3, "patience": 5
    }  # fmt: skip
    done = alliage("tune tune.yml --preset fosse -o again")
    assert done.returncode == 2
    assert "no such preset. Did you mean 'fosse-2024'?" in done.stderr


def test_presets_are_listed_with_their_sources(alliage):
    done = alliage("tune --presets")
    assert "yadav-2023: Yadav 2023 (TIES-Merging), appendix C.6" in done.stdout
    assert "lora: {rank: 8, alpha: 32, dropout: 0.1, targets: [query, value]}" in done.stdout
    document = json.loads(alliage("tune --presets --json").stdout)
    assert document["presets"]["fosse-2024"]["methods"]["full"] == {"learning_rate": 2e-5}


def test_what_is_missing_is_said_at_once(alliage):
    done = alliage("tune")
    assert done.returncode == 2
    assert "RECIPE.yml: no recipe given." in done.stderr
    assert "-o: no output folder given." in done.stderr


def test_a_run_is_resumed_by_its_command_and_a_url_is_refused(alliage, workspace):
    done = alliage("tune tune.yml -o tuned --resume")  # nothing was interrupted
    assert done.returncode == 0, done.stderr
    assert "1 steps" in done.stdout
    done = alliage("tune tune.yml -o s3://bucket/tuned")
    assert done.returncode == 2
    assert "this output cannot go to a URL" in done.stderr


def test_what_was_noticed_of_the_data_is_said(alliage, workspace):
    [held] = [path for path in (workspace / "sentiment-data").iterdir() if "valid" in path.name]
    held.unlink()
    done = alliage("tune tune.yml -o tuned")
    assert done.returncode == 0, done.stderr
    assert "sentiment-data: validation: 1 examples cut from train, at random." in done.stderr
    assert alliage("tune tune.yml -o again -q").stderr == ""
