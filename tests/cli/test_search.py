from __future__ import annotations

import json

import pytest
import yaml

from alliage.studies.results import read_table

BOTH = "--task sentiment-data --task topics-data"


def test_a_search_writes_its_trials_and_a_recipe_that_merge_takes(alliage, workspace):
    done = alliage(f"search merge.yml --preset yadav-2023-task-arithmetic {BOTH} -o found")
    assert done.returncode == 0, done.stderr
    assert "the best of 10 merges, by accuracy" in done.stdout
    assert "sentiment-data is answered by the head of sentiment." in done.stderr
    rows = read_table(workspace / "found", "trials")
    assert len(rows) == 10 * 2
    assert set(rows["method"]) == {"task_arithmetic"}
    means = rows.groupby("trial")["value"].mean()
    best = json.loads(rows[rows["trial"] == means.idxmax()]["parameters"].iloc[0])
    recipe = yaml.safe_load((workspace / "found" / "best.yml").read_text())
    assert recipe["parameters"]["scale"] == best["scale"]
    assert "density" not in recipe["parameters"]  # of ties: task arithmetic has none
    assert alliage("merge found/best.yml -o merged").returncode == 0
    line = "evaluate merged --task sentiment-data --head sentiment --json"
    (scores,) = json.loads(alliage(line).stdout)["scores"]
    accuracy = next(row["value"] for row in scores["scores"] if row["metric"] == "accuracy")
    chosen = rows[(rows["trial"] == means.idxmax()) & (rows["task"] == "sentiment-data")]
    assert accuracy == chosen["value"].iloc[0]


def test_a_section_of_the_recipe_says_what_to_try_and_a_search_goes_on(alliage, workspace):
    recipe = yaml.safe_load((workspace / "merge.yml").read_text())
    section = {"parameters": {"scale": {"low": 0.5, "high": 2.0}}}
    (workspace / "search.yml").write_text(yaml.safe_dump(recipe | {"search": section}))
    line = f"search search.yml {BOTH} -o found --json --seed 1 --trials"
    document = json.loads(alliage(f"{line} 3").stdout)
    assert len(document["trials"]) == 3
    done = alliage(f"{line} 5")
    assert (done.returncode, "--resume" in done.stderr) == (2, True)
    again = json.loads(alliage(f"{line} 5 --resume").stdout)
    assert again["trials"][:3] == document["trials"]
    assert len(again["trials"]) == 5
    assert again["best"]["value"] == max(trial["value"] for trial in again["trials"])
    assert len(read_table(workspace / "found", "trials")) == 5 * 2
    assert (workspace / "found" / "study.journal").exists()


def test_a_file_of_its_own_and_a_metric(alliage, workspace):
    (workspace / "space.yml").write_text("search: {parameters: {density: [0.1, 0.9]}}\n")
    line = f"search merge.yml --space space.yml {BOTH} --metric ece -o found --json"
    document = json.loads(alliage(line).stdout)
    assert document["best"]["metric"] == "ece"
    assert document["best"]["value"] == min(trial["value"] for trial in document["trials"])


def test_a_soup(alliage, workspace):
    line = "search sentiment sentiment sentiment --soup greedy --task sentiment-data"
    done = alliage(f"{line} -o soup --json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["trials"]) == 3 + 2
    assert alliage("merge soup/best.yml -o merged").returncode == 0
    done = alliage("search sentiment sentiment --soup uniform --task sentiment-data -o all")
    assert done.returncode == 0, done.stderr
    recipe = yaml.safe_load((workspace / "all" / "best.yml").read_text())
    assert [entry["model"] for entry in recipe["models"]] == ["../sentiment"] * 2


def test_learned_coefficients_are_a_recipe(alliage, workspace):
    done = alliage(f"search merge.yml --ada-merging layer --steps 3 {BOTH} -o learned")
    assert done.returncode == 0, done.stderr
    assert "by entropy" in done.stdout
    assert "entropy of a batch: " in done.stderr
    recipe = yaml.safe_load((workspace / "learned" / "best.yml").read_text())
    assert recipe["parameters"] == {
        "density": 0.2, "scale": 1.0, "vote": "sum", "combine": "sum"
    }  # fmt: skip
    rules = recipe["models"][0]["parameters"]["weight"]
    assert {"filter", "value"} == set(rules[0])
    assert alliage("merge learned/best.yml -o merged").returncode == 0


def test_paths_of_the_best_recipe_count_from_its_folder(alliage, workspace):
    assert alliage("signs sentiment --base base -o signs.safetensors").returncode == 0
    recipe = yaml.safe_load((workspace / "merge.yml").read_text())
    (workspace / "signs.yml").write_text(yaml.safe_dump(recipe | {"signs": "signs.safetensors"}))
    (workspace / "space.yml").write_text("search: {parameters: {scale: [1.0]}}\n")
    done = alliage(f"search signs.yml --space space.yml {BOTH} -o deep/found")
    assert done.returncode == 0, done.stderr
    best = yaml.safe_load((workspace / "deep" / "found" / "best.yml").read_text())
    assert best["signs"] == "../../signs.safetensors"
    assert best["base"] == "../../base"
    assert [entry["model"] for entry in best["models"]] == ["../../sentiment", "../../topics"]
    assert alliage("merge deep/found/best.yml -o merged").returncode == 0


def test_batches_of_learning_may_be_smaller(alliage):
    line = f"search merge.yml --ada-merging layer --steps 20 {BOTH} --json -o"
    first, same, other = (
        json.loads(alliage(f"{line} {name} {options}").stdout)["best"]["recipe"]
        for name, options in (("a", ""), ("b", "--batch-size 16"), ("c", "--batch-size 2"))
    )
    assert first == same != other


def test_without_a_task_it_says_what_to_take(alliage):
    done = alliage("search merge.yml")
    assert done.returncode == 0, done.stderr
    assert "--method ties --base base sentiment topics --set density=0.2 --set scale=1 " in (
        done.stdout
    )
    assert "--method task_arithmetic" in done.stdout
    assert "--set scale=0.4" in done.stdout
    document = json.loads(alliage("search merge.yml --json").stdout)
    for advice in document["advice"]:
        assert alliage(advice["command"] + "-" + advice["method"]).returncode == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            f"search merge.yml {BOTH} -o x",
            "does not say what to try. Add it, such as search: {parameters: {scale: ",
        ),
        (
            f"search merge.yml --preset yadav-2023-ties --steps 3 {BOTH} -o x",
            "--steps: are of learned weights",
        ),
        ("search a b --soup greedy -o x", "--soup: needs a task"),
        ("search merge.yml --ada-merging task -o x", "--ada-merging: needs a task"),
        (f"search a b --soup greedy --seed 3 {BOTH} -o x", "--seed: does nothing in a soup"),
        ("search a b --soup uniform --task topics-data --task topics-data -o x", "is there twice"),
        (f"search merge.yml --ada-merging task --metric f1 {BOTH} -o x", "Add --criterion score"),
        (f"search merge.yml --preset yadav-2023-tie {BOTH} -o x", "Did you mean 'yadav-2023-ties'"),
        (f"search merge.yml --preset yadav-2023-ties {BOTH}", "Add -o DIR."),
        (f"search merge.yml --soup greedy --ada-merging task {BOTH} -o x", "Choose one."),
        (
            f"search a b --soup greedy --trials 3 {BOTH} -o x",
            "--trials: go with a search of points",
        ),
        (f"search sentiment topics {BOTH} -o x", "Models alone go with --soup."),
        (f"search merge.yml --preset yadav-2023-ties {BOTH} --head a -o x", "expected TASK=MODEL"),
        (f"search merge.yml --preset yadav-2023-ties {BOTH} --metric acc -o x", "Did you mean"),
        (f"search merge.yml --preset a --space b {BOTH} -o x", "two grids"),
        ("search merge.yml --task nowhere -o x", "nowhere"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_merged(alliage, workspace, line, problem):
    done = alliage(line)
    assert done.returncode == 2
    assert problem in done.stderr
    assert not (workspace / "x").exists()
