import json


def test_a_model_and_an_adapter(alliage):
    done = alliage("inspect sentiment sentiment-lora --json")
    model, adapter = json.loads(done.stdout)["checkpoints"]
    assert model["architecture"] == "BertForSequenceClassification"
    assert model["layers"] == 2
    assert model["heads"] == [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    ]
    assert adapter["adapter"]["rank"] == 2
    assert adapter["adapter"]["modules"] == 4
    assert adapter["adapter"]["base"] == "base"


def test_problems_of_all_references(alliage, workspace):
    (workspace / "broken.safetensors").write_bytes(b"no")
    done = alliage("inspect broken.safetensors nowhere base")
    assert done.returncode == 2
    assert "truncated" in done.stderr
    assert "nowhere" in done.stderr
    assert "2 problems" in done.stderr
    assert "BertModel" in done.stdout
