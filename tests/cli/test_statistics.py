from __future__ import annotations

import json

import pytest
import yaml

DATA = "--task sentiment-data"


def test_from_data_to_a_merge_that_verifies(alliage):
    for name in ("sentiment", "topics"):
        line = f"statistics fisher {name} --task {name}-data -o {name}/fisher.safetensors --json"
        done = alliage(line)
        assert done.returncode == 0, done.stderr
        (record,) = json.loads(done.stdout)["statistics"]
        assert (record["kind"], record["labels"], record["split"]) == (
            "fisher",
            "expected",
            "train",
        )
        assert (record["model"], record["without"]) == (name, 0)
        assert done.stderr == ""
    done = alliage("merge --method fisher --base base sentiment topics -o merged")
    assert done.returncode == 0, done.stderr
    assert alliage("verify merged").returncode == 0
    done = alliage("merge --method regmean --base base sentiment topics -o other")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("alliage statistics regmean") == 2


def test_inputs_of_layers_go_through_a_recipe(alliage, workspace):
    line = "statistics regmean++ sentiment topics-lora --task sentiment-data --task topics-data"
    done = alliage(f"{line} -o inputs --alpha 0.7 --examples 5")
    assert done.returncode == 0, done.stderr
    assert "inputs/topics-lora.safetensors" in done.stdout
    last = done.stdout[done.stdout.index("method: ") :]
    assert yaml.safe_load(last) == {
        "method": "regmean_plus_plus",
        "parameters": {"alpha": 0.7},
        "models": [
            {"model": name, "statistics": f"inputs/{name}.safetensors"}
            for name in ("sentiment", "topics-lora")
        ],
    }
    (workspace / "plus.yml").write_text(f"base: base\n{last}")
    done = alliage("merge plus.yml -o merged")
    assert done.returncode == 0, done.stderr
    done = alliage("evaluate merged --task sentiment-data --head sentiment -q")
    assert done.returncode == 0, done.stderr


def test_a_table_for_people_and_the_memory_of_a_pass(alliage):
    done = alliage(f"statistics regmean sentiment {DATA} -o g.safetensors --memory 10kB")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("regmean on train\n")
    assert "g.safetensors: " in done.stdout
    assert "for merges of sentiment by regmean." in done.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            f"fsher sentiment {DATA} -o f.safetensors",
            "no statistics 'fsher'. Did you mean 'fisher'?",
        ),
        (f"fisher sentiment {DATA}", "-o: no output given."),
        (f"fisher sentiment topics {DATA} -o f.safetensors", "topics: fisher is of one model."),
        (f"regmean sentiment {DATA} --labels sampled -o f.safetensors", "--labels: regmean has no"),
        (f"fisher sentiment {DATA} --alpha 0.5 -o f.safetensors", "--alpha: fisher has no such"),
        (f"regmean++ sentiment topics {DATA} -o d", "--task: 2 models, but 1 tasks."),
        (f"fisher sentiment {DATA} -o sentiment", "statistics are a .safetensors file."),
        (f"fisher sentiment {DATA} --labels x -o f.safetensors", "no labels 'x'."),
        (f"fisher nobody {DATA} -o f.safetensors", "nobody"),
        ("fisher sentiment --task nothing -o f.safetensors", "nothing"),
        (f"regmean sentiment {DATA} --memory much -o f.safetensors", "--memory: 'much' is no size"),
    ],
)
def test_wrong_lines_are_usage_errors(alliage, workspace, line, said):
    before = sorted(workspace.iterdir())
    done = alliage(f"statistics {line}")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert sorted(workspace.iterdir()) == before


def test_a_model_with_other_labels_fails(alliage):
    done = alliage("statistics fisher topics --task sentiment-data -o f.safetensors")
    assert (done.returncode, done.stdout) == (1, "")
    assert "negative" in done.stderr


def test_methods_that_need_data_say_so(alliage):
    done = alliage("methods fisher")
    assert "statistics: fisher" in done.stdout
    listed = json.loads(alliage("methods --json").stdout)["methods"]
    needing = {each["name"] for each in listed if each["needs_data"]}
    assert needing >= {"fisher", "regmean", "regmean_plus_plus"}
    assert "ties" not in needing
