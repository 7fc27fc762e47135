from __future__ import annotations

import json

import pytest
import torch

from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints import provenance
from alliage.errors import AlliageError, UsageError
from alliage.pruning import FAMILIES, prune, remove_layers
from alliage.pruning.planning import plan
from alliage.pruning.surgery import run
from tests.pruning.models import MODELS, N_LAYERS, build, outputs, skip_layers


def load(model: torch.nn.Module, folder):
    """from_pretrained without a word about missing or unexpected weights."""
    loaded, info = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return loaded.eval()


def assert_same(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_every_family_is_tested():
    assert MODELS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("sharded", [False, True], ids=["one-file", "shards"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_output_computes_what_the_model_computes_without_those_layers(
    model_type, sharded, tmp_path
):
    keep = [0, 3, 4] if model_type == "modernbert" else [1, 2, 4]
    model = build(model_type)
    model.save_pretrained(tmp_path / "whole", max_shard_size="12KB" if sharded else "1GB")
    assert (tmp_path / "whole" / "model.safetensors.index.json").exists() == sharded

    record = remove_layers(tmp_path / "whole", keep, tmp_path / "pruned")

    whole = outputs(model)
    skip_layers(model, keep)
    pruned = outputs(load(model, tmp_path / "pruned"))
    assert_same(pruned, outputs(model))
    assert not torch.equal(pruned["hidden"], whole["hidden"])
    assert record.kept == tuple(keep)
    assert open_checkpoint(tmp_path / "pruned").nbytes == record.bytes_written


@pytest.mark.parametrize(
    "model_type", ["gemma2", "gemma3_text", "modernbert", "qwen2", "qwen3", "smollm3"]
)
def test_layer_types_that_an_old_config_leaves_to_its_class_do_not_shift(model_type, tmp_path):
    keep = [0, 3, 4] if model_type == "modernbert" else [1, 2, 4]
    model = build(model_type)
    model.save_pretrained(tmp_path / "whole")
    path = tmp_path / "whole" / "config.json"
    config = json.loads(path.read_text())
    for key in ("layer_types", "no_rope_layers"):
        config.pop(key, None)
    if model_type == "gemma3_text":
        config["sliding_window_pattern"] = 3
    path.write_text(json.dumps(config))

    remove_layers(tmp_path / "whole", keep, tmp_path / "pruned")

    skip_layers(model, keep)
    assert_same(outputs(load(model, tmp_path / "pruned")), outputs(model))


def test_an_architecture_not_in_the_table_is_inferred_where_it_is_plain(tmp_path):
    from transformers import ErnieConfig, ErnieForSequenceClassification

    from tests.pruning.models import SMALL

    torch.manual_seed(0)
    model = ErnieForSequenceClassification(ErnieConfig(**SMALL)).eval()
    model.save_pretrained(tmp_path / "whole")
    remove_layers(tmp_path / "whole", [0, 4], tmp_path / "pruned")
    skip_layers(model, [0, 4])
    assert_same(outputs(load(model, tmp_path / "pruned")), outputs(model))


def test_output_in_shards(tmp_path):
    model = build("bert")
    model.save_pretrained(tmp_path / "whole")
    with open_checkpoint(tmp_path / "whole") as checkpoint:
        made = plan(checkpoint, keep_layers=[0, 2], max_shard_bytes=8_000)
        run(made, tmp_path / "pruned")
    assert len(list((tmp_path / "pruned").glob("model-*.safetensors"))) > 2
    skip_layers(model, [0, 2])
    assert_same(outputs(load(model, tmp_path / "pruned")), outputs(model))


def test_a_bare_body_and_pytorch_files(tmp_path):
    body = build("bert").bert
    folder = tmp_path / "whole"
    body.config.save_pretrained(folder)
    torch.save(body.state_dict(), folder / "pytorch_model.bin")
    remove_layers(folder, [3], tmp_path / "pruned")
    loaded = load(body, tmp_path / "pruned")
    kept = {
        name.replace("layer.3.", "layer.0."): value
        for name, value in body.state_dict().items()
        if "layer." not in name or "layer.3." in name
    }
    found = loaded.state_dict()
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], value) for name, value in kept.items())


def test_config_keeps_everything_but_the_depth(tmp_path):
    build("bert", id2label={0: "no", 1: "yes"}).save_pretrained(tmp_path / "whole")
    remove_layers(tmp_path / "whole", [0, 1], tmp_path / "pruned")
    before = json.loads((tmp_path / "whole" / "config.json").read_text())
    after = json.loads((tmp_path / "pruned" / "config.json").read_text())
    assert after == before | {"num_hidden_layers": 2}


def test_companions_heads_card_and_provenance_go_along(family, tmp_path):
    from alliage.merging import merge

    merge(
        "average",
        models=[family / "sentiment", family / "topics"],
        base=family / "base",
        out=tmp_path / "merged",
    )
    record = prune(tmp_path / "merged", tmp_path / "pruned", strategy="first", keep=1)

    whole, pruned = tmp_path / "merged", record.out
    heads = sorted(path.relative_to(whole) for path in whole.glob("heads/*/*"))
    assert heads
    for name in [*heads, "tokenizer.json"]:
        assert (pruned / name).read_bytes() == (whole / name).read_bytes()
    described = provenance.read(pruned)
    assert described["command"] == "prune"
    assert described["recipe"] == {"strategy": "first", "keep": 1}
    assert described["layers_kept"] == [0]
    assert described["method"] == "first"
    assert "layers" in (pruned / "README.md").read_text()
    _, problems = provenance.verify(pruned)
    assert problems == []


def test_facts_of_a_tuned_model_are_carried_over(tmp_path):
    build("bert").save_pretrained(tmp_path / "whole")
    facts = {"task": "mood", "kind": "sequence-classification", "labels": ["a", "b"]}
    (tmp_path / "whole" / "alliage.json").write_text(json.dumps(facts | {"seconds": 3}))
    remove_layers(tmp_path / "whole", [0], tmp_path / "pruned")
    described = provenance.read(tmp_path / "pruned")
    assert facts.items() <= described.items()
    assert "seconds" not in described


def test_same_input_same_bytes(tmp_path):
    build("gpt2").save_pretrained(tmp_path / "whole")
    for out in ("one", "two"):
        remove_layers(tmp_path / "whole", [0, 2], tmp_path / out)
    for path in (tmp_path / "one").iterdir():
        if path.name != "README.md":  # its title is the folder's name
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_nothing_is_left_where_the_model_becomes_shorter_meanwhile(tmp_path):
    build("bert").save_pretrained(tmp_path / "whole")
    weights = tmp_path / "whole" / "model.safetensors"
    with open_checkpoint(tmp_path / "whole") as checkpoint:
        made = plan(checkpoint, keep_layers=[0])
        weights.write_bytes(weights.read_bytes()[:-1000])
        with pytest.raises(AlliageError, match="became shorter"):
            run(made, tmp_path / "pruned")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_existing_output_is_left_alone(tmp_path):
    build("bert").save_pretrained(tmp_path / "whole")
    (tmp_path / "pruned").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        remove_layers(tmp_path / "whole", [0], tmp_path / "pruned")
    assert list((tmp_path / "pruned").iterdir()) == []


def test_keeping_all_layers_is_a_copy(tmp_path):
    model = build("vit")
    model.save_pretrained(tmp_path / "whole")
    remove_layers(tmp_path / "whole", list(range(N_LAYERS)), tmp_path / "copy")
    assert_same(outputs(load(model, tmp_path / "copy")), outputs(model))
