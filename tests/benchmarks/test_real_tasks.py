"""The table of real tasks: which files a task is made of, and what its row says."""

from __future__ import annotations

import gzip

import yaml

from benchmarks import real_tasks


def test_the_official_validation_split_is_the_test_where_there_is_no_other(tmp_path):
    with gzip.open(tmp_path / "train.tsv.gz", "wt") as file:
        file.write("sentence\tlabel\n")
    for name in ("train.conllu", "validation.tsv", "validation_out_of_domain.tsv"):
        (tmp_path / name).write_text("")
    assert real_tasks._files(tmp_path, ".tsv") == {
        "train": str(tmp_path / "train.tsv.gz"),
        "test": str(tmp_path / "validation.tsv"),
    }
    (tmp_path / "train.conllu").unlink()
    (tmp_path / "test.tsv").write_text("")
    assert set(real_tasks._files(tmp_path, "")) == {"train", "validation", "test"}


def test_every_model_has_a_recipe(tmp_path):
    for task in real_tasks.TASKS.values():
        folder = tmp_path / "data" / task.folder
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            (folder / f"{split}{task.suffix or '.tsv'}").write_text("")
    real_tasks._write_recipes(tmp_path)
    recipes = [yaml.safe_load(path.read_text()) for path in tmp_path.glob("tune-*.yml")]
    assert len(recipes) == 2 * len(real_tasks.TASKS)
    assert all((tmp_path / recipe["task"]).is_file() for recipe in recipes)
    assert {recipe["model"] for recipe in recipes} == {"encoder", "digits"}


def test_a_row_shows_the_score_and_what_the_repair_did():
    def scored(ece):
        rows = [
            {"metric": "accuracy", "value": 0.5, "examples": 30},
            {"metric": "ece", "value": ece, "examples": 30},
            {"metric": "smce", "value": ece / 2, "examples": 30},
        ]
        interval = {"metric": "accuracy", "low": 0.4, "high": 0.6}
        return {"scores": rows, "intervals": [interval]}

    found = {"before": scored(0.2), "after": scored(0.1)}
    row = real_tasks._row("inference", {"full": found, "lora": found})
    assert row["full"] == "0.500 (0.400 to 0.600)"
    assert row["ece, lora"] == "0.200 → 0.100"
    assert row["smce, full"] == "0.100 → 0.050"
