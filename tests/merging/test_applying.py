"""The oracle is the adapted model itself: PEFT's forward pass and its own merge."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import alliage
from alliage.errors import AlliageError, UsageError
from tests.conftest import bert_config, save_tokenizer, shift


def sequence_model(labels=3, **config):
    from transformers import BertForSequenceClassification

    return BertForSequenceClassification(bert_config(num_labels=labels, **config))


def distilbert():
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        dim=16, hidden_dim=32, n_layers=2, n_heads=2, vocab_size=30, num_labels=3,
        max_position_embeddings=32,
    )  # fmt: skip
    return DistilBertForSequenceClassification(config)


def token_model():
    from transformers import BertForTokenClassification

    return BertForTokenClassification(bert_config(num_labels=5))


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4, num_channels=1, num_labels=4,
    )  # fmt: skip
    return ViTForImageClassification(config)


def llama():
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        vocab_size=30, num_labels=3, pad_token_id=0,
    )  # fmt: skip
    return LlamaForSequenceClassification(config)


def adapt(model, folder, kind="lora", *, bare=True, **settings):
    """A random adapter of a model, saved beside its base; PEFT's adapted model."""
    from peft import IA3Config, LoraConfig, get_peft_model

    torch.manual_seed(1)
    shift(model, 7, 0.1)
    (model.base_model if bare else model).save_pretrained(folder / "base")
    config = (LoraConfig if kind == "lora" else IA3Config)(**settings)
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "base")
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    adapted.save_pretrained(folder / "adapter")
    return adapted.eval()


def inputs(model):
    torch.manual_seed(2)
    if model.config.model_type == "vit":
        return {"pixel_values": torch.randn(3, 1, 8, 8)}
    return {"input_ids": torch.randint(1, 21, (3, 7))}


def load(folder, like):
    """The model as its own configuration says, every weight of it from the files."""
    import transformers

    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    assert architecture == type(like).__name__
    model, info = getattr(transformers, architecture).from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


HEADS = {
    "noted class": (sequence_model, {"target_modules": ["query"]}, ["classifier"]),
    "type of task": (sequence_model, {"target_modules": ["query"], "task_type": "SEQ_CLS"}, None),
    "tokens": (token_model, {"target_modules": ["dense"], "task_type": "TOKEN_CLS"}, None),
    "two layers": (distilbert, {"target_modules": ["q_lin"]}, ["pre_classifier", "classifier"]),
    "renamed in memory": (vit, {"target_modules": ["q_proj", "fc1"]}, ["classifier"]),
    "decoder": (llama, {"target_modules": ["v_proj"], "task_type": "SEQ_CLS"}, None),
    "embeddings saved": (
        sequence_model,
        {"target_modules": ["key"]},
        ["classifier", "word_embeddings", "pooler"],
    ),
}


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_it_predicts_as_the_adapted_model_does(tmp_path, case):
    make, settings, saved = HEADS[case]
    adapted = adapt(make(), tmp_path, r=2, modules_to_save=saved, **settings)
    model = adapted.get_base_model()
    given = inputs(model)
    with torch.no_grad():
        expected = adapted(**given).logits
    record = alliage.apply(tmp_path / "adapter", out=tmp_path / "out")
    found = load(tmp_path / "out", model)
    with torch.no_grad():
        torch.testing.assert_close(found(**given).logits, expected, rtol=1e-5, atol=1e-6)
    assert found.config.num_labels == model.config.num_labels
    files = list((tmp_path / "out").glob("*.safetensors"))
    assert record.bytes_written == sum(file.stat().st_size for file in files)
    assert not (tmp_path / "out" / "heads").exists()


def test_scales_apply_too(tmp_path):
    adapted = adapt(
        sequence_model(), tmp_path, "ia3", modules_to_save=["classifier"],
        target_modules=["key", "intermediate.dense"], feedforward_modules=["intermediate.dense"],
    )  # fmt: skip
    model = adapted.get_base_model()
    with torch.no_grad():
        expected = adapted(**inputs(model)).logits
    alliage.apply(tmp_path / "adapter", out=tmp_path / "out")
    with torch.no_grad():
        found = load(tmp_path / "out", model)(**inputs(model)).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_scale_multiplies_the_update_and_leaves_the_head_whole(tmp_path):
    adapt(sequence_model(), tmp_path, r=2, target_modules=["key"], modules_to_save=["classifier"])
    alliage.apply(tmp_path / "adapter", out=tmp_path / "out", scale=-0.5, dtype="float16")
    with alliage.open(tmp_path / "out") as found:
        factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        base = load_file(tmp_path / "base" / "model.safetensors")
        name = "encoder.layer.1.attention.self.key"
        A, B = (factors[f"base_model.model.bert.{name}.lora_{part}.weight"] for part in "AB")
        expected = (base[f"{name}.weight"] - 0.5 * 4 * B @ A).half()  # alpha / r = 8 / 2
        stored = found.read(f"{name}.weight")
        torch.testing.assert_close(stored, expected, rtol=1e-3, atol=1e-6)
        head = factors["base_model.model.classifier.weight"]
        assert torch.equal(found.read("classifier.weight"), head)
        assert found.config["dtype"] == "float16"


def causal_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        vocab_size=30,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def neox():
    """Its files call the head embed_out, its modules lm_head."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        vocab_size=30, max_position_embeddings=32,
    )  # fmt: skip
    return GPTNeoXForCausalLM(config)


@pytest.mark.parametrize(("make", "target"), [(causal_llama, "q_proj"), (neox, "query_key_value")])
def test_without_a_head_it_is_one_file_as_peft_merges_it(tmp_path, make, target):
    settings = {"r": 2, "target_modules": [target, "lm_head"], "task_type": "CAUSAL_LM"}
    adapted = adapt(make(), tmp_path, bare=False, **settings)
    alliage.apply(tmp_path / "adapter", base=tmp_path / "base", out=tmp_path / "out")
    adapted.merge_and_unload().save_pretrained(tmp_path / "expected")
    expected = load_file(tmp_path / "expected" / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_recorded_task_and_its_labels_stay_with_the_model(tmp_path, family):
    adapt(sequence_model(), tmp_path, r=2, target_modules=["key"], task_type="SEQ_CLS")
    labels = ["weather", "sport", "arts"]
    recorded = {"task": "topics", "kind": "sequence-classification", "labels": labels}
    (tmp_path / "adapter" / "alliage.json").write_text(json.dumps(recorded))
    save_tokenizer(tmp_path / "adapter")
    alliage.apply(tmp_path / "adapter", out=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "alliage.json").read_text())
    assert {key: record[key] for key in recorded} == recorded
    assert load(tmp_path / "out", sequence_model()).config.label2id["sport"] == 1
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert {entry["role"] for entry in record["inputs"]} == {"base", "adapter"}
    listed = {entry["file"] for entry in record["outputs"]}
    shards = {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    assert {*shards, "model.safetensors.index.json", "config.json", "tokenizer.json"} <= listed


def test_refusals(tmp_path, family):
    with pytest.raises(UsageError, match="is a full model; expected an adapter"):
        alliage.apply(family / "sentiment", out=tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        alliage.apply(family / "sentiment-lora", out=tmp_path)
    with pytest.raises(UsageError, match="finite"):
        alliage.apply(family / "sentiment-lora", out=tmp_path / "out", scale=float("nan"))
    adapt(sequence_model(hidden_size=24), tmp_path, r=2, target_modules=["key"])
    with pytest.raises(AlliageError, match="another base"):
        alliage.apply(tmp_path / "adapter", base=family / "base", out=tmp_path / "out")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = None
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError, match="names no base"):
        alliage.apply(tmp_path / "adapter", out=tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_failure_half_way_leaves_nothing(tmp_path):
    adapt(sequence_model(), tmp_path, r=2, target_modules=["key"], task_type="SEQ_CLS")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    tensors["pooler.dense.bias"][0] = float("nan")
    from safetensors.torch import save_file

    save_file(tensors, file)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AlliageError, match=r"pooler.dense.bias: holds NaN"):
        alliage.apply(tmp_path / "adapter", out=tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_with_a_head_refuses_a_url(tmp_path, monkeypatch):
    adapt(sequence_model(), tmp_path, r=2, target_modules=["key"], modules_to_save=["classifier"])
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    # No other test's: what lies in memory stays as long as the process.
    url = f"memory://{tmp_path.name}/out"
    with pytest.raises(UsageError, match=f"{url}: this output cannot go to a URL"):
        alliage.apply("adapter", out=url)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("saved", [None, ["classifier"]], ids=["no head", "head"])
def test_an_interrupted_run_is_gone_on_with(tmp_path, monkeypatch, saved):
    adapt(sequence_model(), tmp_path, r=2, target_modules=["key"], modules_to_save=saved)
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    whole = alliage.apply("adapter", out="whole")

    def interrupt(stage, done, total):
        if stage == "hashing inputs":  # the weights are merged
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        alliage.apply("adapter", out="out", on_event=interrupt)
    assert "what is done is kept. Go on with --resume" in caught.value.__notes__[0]
    with pytest.raises(UsageError, match="an interrupted run left its work"):
        alliage.apply("adapter", out="out")
    record = alliage.apply("adapter", out="out", resume=True, threads=1)
    assert record.parts_kept == 1
    assert record.bytes_written == whole.bytes_written
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("whole", "out")
    )
    assert first.pop("README.md") != second.pop("README.md")  # their titles
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "whole", "out"])
