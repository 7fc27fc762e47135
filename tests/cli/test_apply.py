import json

import pytest
import torch
from safetensors.torch import load_file


def test_an_adapter_becomes_a_classifier(alliage, workspace):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    done = alliage("apply sentiment-lora -o out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out: sentiment-lora applied, ")
    found = AutoModelForSequenceClassification.from_pretrained("out").eval()
    base = AutoModelForSequenceClassification.from_pretrained("base", num_labels=2)
    adapted = PeftModel.from_pretrained(base, "sentiment-lora").eval()
    words = torch.tensor([[2, 5, 7, 9, 3]])
    with torch.no_grad():
        torch.testing.assert_close(found(words).logits, adapted(words).logits, rtol=1e-5, atol=1e-6)
    assert (workspace / "out" / "tokenizer.json").is_file()
    verified = alliage("verify out --json")
    assert verified.returncode == 0
    inspected = json.loads(alliage("inspect out --json").stdout)["checkpoints"][0]
    assert inspected["architecture"] == "BertForSequenceClassification"


def test_json_is_all_of_stdout(alliage, workspace):
    done = alliage("apply topics-lora --base base --scale 2 --dtype bfloat16 -o out --json -q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    files = list((workspace / "out").glob("*.safetensors"))
    written = json.loads(done.stdout)["run"]
    assert written["out"] == "out"
    assert written["bytes_written"] == sum(file.stat().st_size for file in files)
    body = load_file(workspace / "out" / "model-00001-of-00002.safetensors")
    assert {tensor.dtype for tensor in body.values()} == {torch.bfloat16}


def test_a_task_comes_back_out_of_a_merge(alliage, workspace):
    done = alliage("merge --method emr --base base sentiment topics -o merged")
    assert done.returncode == 0, done.stderr
    assert "`alliage apply OUT --task NAME` rebuilds the model" in done.stderr
    done = alliage("apply merged --task topics -o out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out: topics out of merged, ")
    inspected = json.loads(alliage("inspect out --json").stdout)["checkpoints"][0]
    assert inspected["architecture"] == "BertForSequenceClassification"
    for folder in ("merged", "out"):
        assert alliage(f"verify {folder}").returncode == 0
    done = alliage("apply merged --task topic -o again")
    assert done.returncode == 2
    assert "merged: topic: no such task. Did you mean 'topics'?" in done.stderr
    assert not (workspace / "again").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sentiment-lora", "no output folder"),
        ("sentiment -o out", "is a full model; expected an adapter. A sum of full models"),
        ("sentiment-lor -o out", "Did you mean 'sentiment-lora'"),
        ("sentiment-lora -o topics", "exists already"),
        ("sentiment --task topics -o out", "holds no masks of tasks"),
        ("sentiment-lora -o out --dtype int8", "dtype"),
        ("sentiment-lora -o out --scale inf", "finite"),
    ],
)
def test_usage_errors_exit_with_2_and_leave_nothing(alliage, workspace, line, message):
    before = sorted(workspace.iterdir())
    done = alliage(f"apply {line}")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert message in done.stderr
    assert sorted(workspace.iterdir()) == before
