"""Task heads: never averaged unless they are known to decide the same, never lost."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import alliage
from alliage.checkpoints import provenance
from alliage.checkpoints.labels import head_outputs
from alliage.errors import UsageError
from alliage.merging import parse_recipe, plan, run
from tests.conftest import bert_config, shift


def classifier(folder, seed, **config):
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config(**config))
    shift(model, seed)
    model.save_pretrained(folder)
    return folder


def merged(folder):
    return load_file(folder / "model.safetensors")


def test_unnamed_labels_are_not_the_same_labels(tmp_path):
    """transformers leaves id2label out for two labels: that says nothing of what they mean."""
    models = [classifier(tmp_path / name, seed) for seed, name in enumerate("ab")]
    alliage.merge("average", models=models, out=tmp_path / "out")
    assert "classifier.weight" not in merged(tmp_path / "out")
    for folder in models:
        head = load_file(tmp_path / "out" / "heads" / folder.name / "head.safetensors")
        assert torch.equal(head["classifier.weight"], merged(folder)["classifier.weight"])


def test_named_labels_or_a_recorded_task_make_one_head(tmp_path):
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    named = [classifier(tmp_path / name, seed, **names) for seed, name in enumerate("ab")]
    alliage.merge("average", models=named, out=tmp_path / "named")
    one, other = (merged(folder)["classifier.weight"] for folder in named)
    torch.testing.assert_close(merged(tmp_path / "named")["classifier.weight"], (one + other) / 2)
    recorded = [classifier(tmp_path / name, seed) for seed, name in enumerate("cd")]
    for folder in recorded:
        (folder / "alliage.json").write_text(json.dumps({"task": "sst2"}))
    alliage.merge("average", models=recorded, out=tmp_path / "recorded")
    assert "classifier.weight" in merged(tmp_path / "recorded")


def adapter(base, folder, **settings):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    causal = AutoConfig.from_pretrained(base).architectures[0].endswith("LMHeadModel")
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    adapted = get_peft_model(kind.from_pretrained(base), LoraConfig(r=2, **settings))
    torch.manual_seed(5)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter += 0.2 * torch.randn_like(parameter)
    adapted.save_pretrained(folder)
    adapted.merge_and_unload().save_pretrained(f"{folder}-full")
    return folder


def test_the_bases_own_head_stays_where_no_model_brings_another(tmp_path):
    base = classifier(tmp_path / "base", 0)
    lora = adapter(base, tmp_path / "lora", target_modules=["query"])
    alliage.merge("average", base=base, models=[lora], out=tmp_path / "out")
    expected, found = merged(tmp_path / "lora-full"), merged(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    other = classifier(tmp_path / "other", 1, num_labels=3)
    chosen = {"method": "average", "base": str(base), "models": [str(other)]}
    assert plan(parse_recipe(chosen)).dropped == ["classifier.bias", "classifier.weight"]


def test_a_merged_adapter_that_is_applied_keeps_its_heads(tmp_path):
    base = classifier(tmp_path / "base", 0)
    settings = {"target_modules": ["query"], "modules_to_save": ["classifier"]}
    ones = [adapter(base, tmp_path / name, task_type="SEQ_CLS", **settings) for name in "ab"]
    alliage.merge("lora_concat", base=base, models=ones, out=tmp_path / "merged")
    alliage.apply(tmp_path / "merged", out=tmp_path / "whole")
    for folder in ones:
        kept, given = (tmp_path / home / "heads" / folder.name for home in ("whole", "merged"))
        assert (kept / "head.safetensors").read_bytes() == (given / "head.safetensors").read_bytes()
        assert (kept / "head.json").read_bytes() == (given / "head.json").read_bytes()
    assert not provenance.verify(tmp_path / "whole")[1]


def gpt2(folder, *, tied=True):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=30, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=tied,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["attn.c_proj", "lm_head"]},  # PEFT saves fan_in_fan_out false here
        {"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["wte", "c_attn"]},
    ],
    ids=["square Conv1D", "language-model head saved whole", "embedding with base_layer"],
)
def test_adapters_of_a_decoder_are_what_peft_merges(tmp_path, settings):
    base = gpt2(tmp_path / "base", tied=False)
    lora = adapter(base, tmp_path / "lora", **settings)
    alliage.merge("average", base=base, models=[lora], out=tmp_path / "out")
    assert not (tmp_path / "out" / "heads").exists()
    expected, found = merged(tmp_path / "lora-full"), merged(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_tied_copy_is_no_head(tmp_path, family):
    from transformers import BertForMaskedLM, BertModel

    torch.manual_seed(0)
    model = BertForMaskedLM(bert_config())
    model.bert.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "tuned")
    tensors = load_file(tmp_path / "tuned" / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors[
        "bert.embeddings.word_embeddings.weight"
    ].clone()
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "tuned" / "model.safetensors")
    chosen = {"method": "ties", "base": str(tmp_path / "base"), "models": [str(tmp_path / "tuned")]}
    heads = plan(parse_recipe(chosen)).left_apart["tuned"]
    assert "cls.predictions.decoder.weight" not in heads
    assert "cls.predictions.bias" in heads
    assert BertModel.from_pretrained(tmp_path / "base") is not None


@pytest.mark.parametrize("name", ["../evil", "/evil", ".evil", "a/b", "a\\b", ""])
def test_a_name_cannot_leave_the_output(family, name):
    content = {"method": "average", "models": [{"model": str(family / "sentiment"), "name": name}]}
    with pytest.raises(UsageError, match=r"models\.0\.name"):
        parse_recipe(content)


def test_models_of_one_name_are_numbered(family, tmp_path):
    for parent in ("x", "y", "z"):
        shutil.copytree(family / "sentiment", tmp_path / parent / "n")
    models = [str(tmp_path / parent / "n") for parent in "xy"]
    models += [{"model": str(tmp_path / "z" / "n"), "name": "n-2"}]
    chosen = {"method": "ties", "base": str(family / "base"), "models": models}
    run(plan(parse_recipe(chosen)), tmp_path / "out")
    folders = sorted(path.name for path in (tmp_path / "out" / "heads").iterdir())
    assert folders == ["n", "n-2", "n-2-2"]


def test_labels_that_are_no_numbers_are_no_labels(family, tmp_path):
    shutil.copytree(family / "sentiment", tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config | {"id2label": {"x": "y"}}))
    alliage.merge("ties", base=family / "base", models=[tmp_path / "odd"], out=tmp_path / "out")
    head = json.loads((tmp_path / "out" / "heads" / "odd" / "head.json").read_text())
    assert head["labels"] is None
    assert head["num_labels"] == 2


@pytest.mark.parametrize(
    ("shapes", "outputs"),
    [
        ({"classifier.weight": (3, 16), "classifier.bias": (3,)}, 3),
        ({"pre_classifier.weight": (16, 16), "classifier.weight": (5, 16)}, 5),  # DistilBERT
        ({"classifier.dense.weight": (16, 16), "classifier.out_proj.weight": (2, 16)}, 2),
        ({"pooler.dense.weight": (16, 16), "classifier.weight": (4, 16)}, 4),  # DeBERTa
        ({"classifier.dense.weight": (16, 16), "classifier.out_proj.weight": (16, 16)}, 16),
        ({"classifier.bias": (7,)}, 7),
        ({"classifier.scale": ()}, 1),
    ],
)
def test_how_many_outputs_a_head_has(shapes, outputs):
    assert head_outputs(shapes) == outputs
