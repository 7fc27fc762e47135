import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage.errors import AlliageError, UsageError
from tests.conftest import bert_config


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    from transformers import BertForMaskedLM

    folder = tmp_path_factory.mktemp("sharded")
    torch.manual_seed(0)
    model = BertForMaskedLM(bert_config())
    model.save_pretrained(folder, max_shard_size="10KB")
    return folder


def test_sharded_index(sharded):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    with alliage.open(sharded) as checkpoint:
        assert set(checkpoint.specs()) == set(index["weight_map"])
        for name, file in index["weight_map"].items():
            assert checkpoint.specs()[name].file.name == file
            assert torch.equal(checkpoint.read(name), load_file(sharded / file)[name])
    with alliage.open(sharded / "model.safetensors.index.json") as by_index:
        assert by_index.specs() == checkpoint.specs()


def edit_index(sharded, tmp_path, change):
    for file in sharded.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../../etc/passwd", "in the same folder"),
        ("/etc/passwd", "in the same folder"),
        ("sub/model.safetensors", "in the same folder"),
        ("model-00009-of-00002.safetensors", "which is no file there"),
    ],
)
def test_an_index_cannot_lead_elsewhere(sharded, tmp_path, file, message):
    folder = edit_index(sharded, tmp_path, lambda m: m.update({next(iter(m)): file}))
    with pytest.raises(AlliageError, match=message):
        alliage.open(folder)


def test_index_and_shards_must_agree(sharded, tmp_path):
    folder = edit_index(sharded, tmp_path, lambda m: m.update({"ghost": m.pop(next(iter(m)))}))
    with pytest.raises(AlliageError) as caught:
        alliage.open(folder)
    messages = str(caught.value)
    assert "ghost: the index places it here, the file lacks it" in messages
    assert "is in the file but not in the index" in messages


def test_pytorch_bin(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "n": torch.arange(3)}
    torch.save(tensors | {"again": tensors["a"]}, tmp_path / "pytorch_model.bin")
    with alliage.open(tmp_path) as checkpoint:
        assert checkpoint.specs()["b"].dtype == "BF16"
        for name, tensor in tensors.items():
            assert torch.equal(checkpoint.read(name), tensor)
        assert torch.equal(checkpoint.read("a", 5, 9), tensors["a"].reshape(-1)[5:9])
        assert checkpoint.ties == {"again": "a"}


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle was executed')",)


def test_no_pickle_is_executed(tmp_path):
    torch.save({"a": torch.zeros(2), "b": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(AlliageError, match="convert it") as caught:
        alliage.open(tmp_path)
    assert "python -c" in str(caught.value)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(AlliageError, match=r"pytorch_model\.bin"):
        alliage.open(tmp_path)


def test_a_bin_of_other_things_is_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(2)}, "epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(AlliageError, match="'state_dict', 'epoch'"):
        alliage.open(tmp_path)


def test_safetensors_are_preferred_to_pickles(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with alliage.open(tmp_path) as checkpoint:
        assert torch.equal(checkpoint.read("a"), torch.ones(2))


@pytest.mark.parametrize("ref", ["nobody/nothing", "nobody/nothing@v1", "nothing"])
def test_hub_ids_in_offline_mode(ref):
    with pytest.raises(UsageError, match="hub"):
        alliage.open(ref)


def test_hub_ids_are_found_in_the_hubs_cache(tmp_path, monkeypatch, family):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_bytes((family / "base" / name).read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with alliage.open("org/tiny@main") as checkpoint:
        assert checkpoint.config["model_type"] == "bert"
        assert checkpoint.name == "org/tiny@main"


def test_wrong_references_name_the_nearest(family, tmp_path):
    with pytest.raises(UsageError, match="'sentiment'"):
        alliage.open(family / "sentimnt")
    with pytest.raises(AlliageError, match="no weights in it"):
        alliage.open(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="no weight file"):
        alliage.open(tmp_path / "notes.txt")


def test_configured_ties_need_both_copies(tmp_path):
    shape = {"model.embed_tokens.weight": torch.zeros(4, 2), "lm_head.weight": torch.zeros(4, 2)}
    save_file(shape, tmp_path / "model.safetensors")
    for config, ties in [
        (
            {"model_type": "llama", "tie_word_embeddings": True},
            {"lm_head.weight": "model.embed_tokens.weight"},
        ),
        ({"model_type": "llama"}, {}),
        ({"model_type": "gemma2"}, {"lm_head.weight": "model.embed_tokens.weight"}),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config))
        with alliage.open(tmp_path) as checkpoint:
            assert checkpoint.ties == ties
            assert checkpoint.numel == (8 if ties else 16)


def test_adapter_settings(family):
    with alliage.open(family / "sentiment-lora") as adapter:
        assert adapter.adapter.kind == "lora"
        assert adapter.adapter.scale("anything", 2) == 2.0
        assert len(adapter.adapter_modules) == 4
        assert sorted(adapter.adapter_saved) == ["classifier.bias", "classifier.weight"]
        assert adapter.base.path == family / "base"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "bias on B"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"bias": "all"}, "biases trained beside"),
        ({"peft_type": "LOHA"}, "LOHA; supported: LORA, IA3"),
        ({"r": 0}, "r must be a positive integer"),
        ({"rank_pattern": [1]}, "expected module names with numbers"),
        ({"alpha_pattern": {"(": 2}}, "is no regular expression"),
        ({"rank_pattern": {"query": "8"}}, "expected a number"),
    ],
)
def test_adapters_that_are_not_plain_are_refused_by_name(family, tmp_path, change, message):
    for file in (family / "sentiment-lora").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(AlliageError, match=message):
        alliage.open(tmp_path)


def test_an_adapter_without_a_partner_factor(family, tmp_path):
    source = family / "sentiment-lora"
    tensors = load_file(source / "adapter_model.safetensors")
    lost = next(name for name in tensors if "lora_A" in name)
    del tensors[lost]
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    with alliage.open(tmp_path) as adapter, pytest.raises(AlliageError, match=r"found \['B'\]"):
        _ = adapter.adapter_modules
