import json
import re
from pathlib import Path

import pytest

from alliage.studies.results import read_table

MODELS = "sentiment topics"


def test_prints_tables_and_findings(alliage):
    done = alliage(f"alliage interference --base base {MODELS} sentiment-lora")
    assert done.returncode == 0, done.stderr
    for title in (
        "Sign conflicts of all 3 models by the share kept",
        "Sign conflicts by the number of models, top 20%",
        "Sign conflicts by kind of module, top 20%",
        "Pairs, top 20%",
        "Mean magnitude of merged parameters, top 20%",
        "Signs conflict in ",
        "By the number of models: ",
    ):
        assert title in done.stdout
    assert "note: 35 of 39 parameters are not tuned in all models" in done.stderr


def test_writes_the_results_table(alliage, workspace):
    done = alliage(f"alliage interference --base base {MODELS} --top-k 0.3 -o results -q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    table = read_table(workspace / "results", "interference")
    one = table[(table.measure == "conflict") & (table.by == "model") & (table.top_k == 0.3)]
    pair = one[one["first"] != ""]
    whole = one[one["first"] == ""]
    assert pair["value"].tolist() == whole["value"].tolist()  # two models are one pair
    assert table["value"].notna().all()
    assert set(table["by"]) == {"model", "layer", "kind", "module", "keeping", "agreement"}


def test_json_is_all_of_stdout(alliage):
    done = alliage(f"alliage interference --base base {MODELS} --modules q,v --json -q")
    document = json.loads(done.stdout)
    assert document["models"] == ["sentiment", "topics"]
    assert len(document["modules"]) == 4
    assert {row["measure"] for row in document["interference"]} == {
        "conflict", "conflict_of_all", "random", "overlap", "random_overlap", "influence",
        "magnitude", "deviation",
    }  # fmt: skip
    assert done.stderr == ""


def test_draws_figures(alliage, workspace):
    done = alliage(f"alliage interference --base base {MODELS} --figures drawn")
    assert done.returncode == 0, done.stderr
    drawn = sorted(path.name for path in (workspace / "drawn").iterdir())
    names = ("agreement", "influence", "kinds", "number", "pairs", "top_k")
    assert drawn == [f"{name}.{suffix}" for name in names for suffix in ("csv", "svg")]
    assert "Drew 6 figures in drawn." in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("sentiment", "expected two or more, got 1"),
        (f"{MODELS} --top-k 20", "20 % are 0.2"),
        (f"{MODELS} --modules valeu", "Did you mean 'value'"),
        (f"{MODELS} -o merge.yml", "is a file; expected a folder"),
        (f"{MODELS} --figures merge.yml", "is a file; expected a folder"),
    ],
)
def test_wrong_usage(alliage, options, said):
    done = alliage(f"alliage interference --base base {options}")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_the_page_in_the_documentation_runs(alliage, workspace, capsys):
    page = (Path(__file__).parents[2] / "docs" / "interference.md").read_text()
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.split("\n")
    ]
    for line in filter(None, lines):
        done = alliage(line)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (workspace / "flipped" / "model.safetensors").exists()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(code, {})
    assert "Signs conflict in" in capsys.readouterr().out
