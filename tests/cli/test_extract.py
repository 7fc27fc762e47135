import json
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file


def test_the_table_says_what_is_kept_and_what_is_left_out(alliage, workspace):
    done = alliage("extract sentiment --base base --rank 4 -o out")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    row = next(line for line in lines if line[:1] == ["bert.encoder.layer.1.output.dense"])
    assert row[1:3] == ["16x32", "4"]
    assert "tensors with" in done.stdout
    assert "of the whole: a bias." in done.stdout
    assert " of the difference in 16 modules, " in done.stdout
    settings = json.loads((workspace / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str((workspace / "base").resolve())
    assert settings["modules_to_save"] == ["classifier"]
    assert alliage("verify out").returncode == 0


def test_what_is_extracted_answers_the_task_alike(alliage, workspace):
    file, base = workspace / "sentiment/model.safetensors", load_file("base/model.safetensors")
    tensors = load_file(file)
    for name, tensor in base.items():
        if tensor.ndim == 1:  # biases and norms, which the adapter would lack
            tensors[f"bert.{name}"] = tensor
    save_file(tensors, file)
    assert alliage("extract sentiment --base base --energy 1 -o out").returncode == 0
    scores = []
    for model in ("sentiment", "out"):
        done = alliage(f"evaluate {model} --task sentiment-data --json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["scores"][0]
        rows = [row for row in found["scores"] if row["metric"] != "seconds"]
        scores.append({row["metric"]: row["value"] for row in rows})
    assert found["models"][0]["role"] == "single"
    assert len(scores[0]) > 2  # calibration too, which the last digits of probabilities move
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)


def test_a_real_process_is_quiet_when_asked(workspace):
    command = [sys.executable, "-c", "from alliage.cli import main; main()", "extract"]
    line = "sentiment --base base --rank 2 -o out --json -q"
    done = subprocess.run([*command, *line.split()], cwd=workspace, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout)["saved_whole"] == [
        "base_model.model.classifier.bias",
        "base_model.model.classifier.weight",
    ]


def test_json_is_all_of_stdout(alliage, workspace):
    line = "extract topics-lora --rank 1 --modules q --dtype bfloat16 -o out --json -q"
    done = alliage(line)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert [one["rank"] for one in document["modules"]] == [1, 1]
    assert {one["reason"] for one in document["left_out"]} == {"not among the modules asked for"}
    shares = [one["share"] for one in document["modules"] + document["left_out"]]
    assert sum(shares) == pytest.approx(1)
    kept = sum(one["share"] * one["kept"] for one in document["modules"])
    assert document["kept"] == pytest.approx(kept)
    file = workspace / "out" / "adapter_model.safetensors"
    assert document["run"]["bytes_written"] == file.stat().st_size


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sentiment --base base --rank 2", "no output folder"),
        ("sentiment --base base -o out", "expected one of the two"),
        ("sentiment --base base --rank 2 --energy 0.5 -o out", "expected one of the two"),
        ("sentiment --rank 2 -o out", "no base given"),
        ("sentiment --base base --rank 2 --modules quarry -o out", "Did you mean 'query'"),
        ("sentiment --base base --rank 2 --modules '' -o out", "modules: '' names no kind"),
        ("sentiment --base base --rank 2 --modules , -o out", "modules: ',' names no kind"),
        ("sentiment --base base --rank 2 --dtype int8 -o out", "no type 'int8'"),
        ("sentiment --base base --rank 2 -o topics", "exists already"),
        ("sentimen --base base --rank 2 -o out", "Did you mean 'sentiment'"),
    ],
)
def test_usage_errors_exit_with_2_and_leave_nothing(alliage, workspace, line, message):
    before = sorted(workspace.iterdir())
    done = alliage(f"extract {line}")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert message in done.stderr
    assert sorted(workspace.iterdir()) == before
