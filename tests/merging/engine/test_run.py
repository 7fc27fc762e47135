"""Whole merges on files, against dense arithmetic on tensors and transformers' loading."""

import json
import math
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage.errors import AlliageError
from alliage.merging import parse_recipe, plan, run
from tests.conftest import LABELS
from tests.merging.methods.test_ties import reference

MODELS = ("sentiment", "topics")


@pytest.fixture(scope="module")
def tensors(family):
    return {n: load_file(family / n / "model.safetensors") for n in ("base", *MODELS)}


def recipe(family, method="ties", models=MODELS, **more):
    content = {
        "method": method,
        "base": str(family / "base"),
        "models": [str(family / name) for name in models],
    }
    return parse_recipe(content | more)


def test_ties_equals_the_authors_algorithm_on_flat_vectors(family, tensors, tmp_path):
    record = alliage.merge(
        "ties", base=family / "base", models=[family / n for n in MODELS], out=tmp_path / "out"
    )
    assert record.passes == 2
    base, merged = tensors["base"], load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == base.keys()
    flat = torch.stack(
        [torch.cat([(tensors[t]["bert." + n] - base[n]).flatten() for n in base]) for t in MODELS]
    )
    expected = torch.cat([base[n].flatten() for n in base]) + reference(flat, 0.2)
    found = torch.cat([merged[n].flatten() for n in base])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_blocks_with_cancelling_votes_are_redone_where_the_guess_was_wrong(tmp_path, seed):
    """Coarse weights, so that τ₁ = −τ₂ is common; the sign of the majority differs by seed."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.zeros(300, 100)
    tuned = [torch.randint(-2, 3, (300, 100), generator=generator).float() for _ in range(2)]
    for name, tensor in zip(("base", "a", "b"), (base, *tuned), strict=True):
        (tmp_path / name).mkdir()
        save_file({"layers.0.weight": tensor}, tmp_path / name / "model.safetensors")
    models = [str(tmp_path / "a"), str(tmp_path / "b")]
    chosen = recipe(tmp_path, models=models)
    least = plan(chosen, threads=2).memory_for(2)
    made = plan(chosen, memory=least, threads=2)
    record = run(made, tmp_path / "out")
    expected = reference(torch.stack([t.flatten() for t in tuned]), 0.2)
    merged = load_file(tmp_path / "out" / "model.safetensors")["layers.0.weight"]
    assert torch.equal(merged.flatten(), expected)
    kept = [t.where(t.abs() == 2, 0) for t in tuned]  # two in five have magnitude 2
    votes = (kept[0] + kept[1]).sign().sum()
    assert (record.blocks_redone > 0) == bool(votes <= 0)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("average", lambda base, a, b: (a + b) / 2),
        ("task_arithmetic", lambda base, a, b: base + 0.4 * ((a - base) + (b - base))),
    ],
)
def test_dense_arithmetic(family, tensors, tmp_path, method, expected):
    run(plan(recipe(family, method)), tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    for name, base in tensors["base"].items():
        a, b = (tensors[task]["bert." + name] for task in MODELS)
        torch.testing.assert_close(merged[name], expected(base, a, b))


def test_one_model_at_full_weight_is_that_model(family, tensors, tmp_path):
    alliage.merge("average", models={family / "sentiment": 1.0}, out=tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in tensors["sentiment"].items():
        assert torch.equal(merged[name], tensor)


def test_the_result_loads_and_predicts_in_transformers(family, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    run(plan(recipe(family)), tmp_path / "out")
    model, info = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = AutoTokenizer.from_pretrained(tmp_path / "out")(
        "the film was good", return_tensors="pt"
    )
    hidden = model(**inputs).last_hidden_state
    assert hidden.shape[-1] == 16
    assert hidden.isfinite().all()


def test_heads_are_kept_with_their_labels(family, tensors, tmp_path):
    run(plan(recipe(family)), tmp_path / "out")
    for name in MODELS:
        home = tmp_path / "out" / "heads" / name
        head = load_file(home / "head.safetensors")
        assert set(head) == {"classifier.weight", "classifier.bias"}
        assert torch.equal(head["classifier.weight"], tensors[name]["classifier.weight"])
        described = json.loads((home / "head.json").read_text())
        assert described["labels"] == LABELS[name]
        assert described["kind"] == "sequence-classification"


def digest(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*.safetensors")}


def test_same_bytes_whatever_the_threads_memory_and_shards(family, tmp_path):
    from transformers import BertForSequenceClassification

    lora = [str(family / f"{name}-lora") for name in MODELS]
    mixed = [*(str(family / name) for name in MODELS), *lora]
    chosen = recipe(family, models=mixed, parameters={"density": 0.3})
    run(plan(chosen), tmp_path / "one")
    least = plan(chosen, threads=3).memory_for(3)
    tight = plan(chosen, threads=3, memory=least)
    assert tight.block < plan(chosen).block
    assert tight.working_memory == least
    run(tight, tmp_path / "three")
    assert plan(chosen, threads=3, memory=least - 1).workers == 2
    model = BertForSequenceClassification.from_pretrained(family / "sentiment")
    model.save_pretrained(tmp_path / "sentiment", max_shard_size="8KB")
    again = [str(tmp_path / "sentiment"), *mixed[1:]]
    run(plan(recipe(family, models=again, parameters={"density": 0.3})), tmp_path / "shards")
    one, three, shards = (digest(tmp_path / name) for name in ("one", "three", "shards"))
    assert one == three
    assert one["model.safetensors"] == shards["model.safetensors"]


def test_output_dtype_is_rounded_once(family, tensors, tmp_path):
    run(plan(recipe(family, "task_arithmetic")), tmp_path / "full")
    run(plan(recipe(family, "task_arithmetic", dtype="bfloat16")), tmp_path / "half")
    full, half = (load_file(tmp_path / n / "model.safetensors") for n in ("full", "half"))
    for name, tensor in full.items():
        assert torch.equal(half[name], tensor.bfloat16())
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_adapters_merge_like_the_full_models_they_make(family, tmp_path):
    from peft import PeftModel
    from transformers import BertForSequenceClassification, BertModel

    for name in MODELS:
        model = BertForSequenceClassification.from_pretrained(
            family / "base", num_labels=len(LABELS[name])
        )
        adapted = PeftModel.from_pretrained(model, family / f"{name}-lora")
        adapted.merge_and_unload().save_pretrained(tmp_path / name)
    lora = [str(family / f"{name}-lora") for name in MODELS]
    run(plan(recipe(family, "task_arithmetic", lora)), tmp_path / "streamed")
    full = [str(tmp_path / name) for name in MODELS]
    run(plan(recipe(family, "task_arithmetic", full)), tmp_path / "dense")
    streamed, dense = (load_file(tmp_path / n / "model.safetensors") for n in ("streamed", "dense"))
    for name, tensor in dense.items():
        torch.testing.assert_close(streamed[name], tensor, rtol=1e-5, atol=1e-6)
    assert BertModel.from_pretrained(tmp_path / "streamed") is not None


def test_averaged_factors_make_an_adapter_that_peft_loads(family, tmp_path):
    from peft import PeftModel
    from transformers import BertModel

    lora = [str(family / f"{name}-lora") for name in MODELS]
    run(plan(recipe(family, "factor_average", lora)), tmp_path / "out")
    merged = load_file(tmp_path / "out" / "adapter_model.safetensors")
    sources = [load_file(family / f"{name}-lora" / "adapter_model.safetensors") for name in MODELS]
    for name, tensor in merged.items():  # of scale 1, with the root of 4/2 in each factor
        expected = (sources[0][name] + sources[1][name]) / 2 * math.sqrt(2)
        torch.testing.assert_close(tensor, expected)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["lora_alpha"] == settings["r"] == 2
    assert settings["modules_to_save"] is None
    assert settings["base_model_name_or_path"] == str(family / "base")
    body = BertModel.from_pretrained(family / "base")
    wrapped = torch.nn.Module()
    wrapped.bert, wrapped.config = body, body.config
    loaded = PeftModel.from_pretrained(wrapped, tmp_path / "out")
    assert any("lora_A" in name for name, _ in loaded.named_parameters())


def test_a_merged_adapter_finds_its_base_from_any_folder(family, tmp_path, monkeypatch):
    monkeypatch.chdir(family)
    chosen = parse_recipe(
        {"method": "factor_average", "base": "base", "models": [f"{name}-lora" for name in MODELS]}
    )
    run(plan(chosen), tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    with alliage.open("out") as merged:
        assert merged.base.path == family / "base"


def test_integer_buffers_pass_through(family, tensors, tmp_path):
    for name in ("base", "sentiment"):
        shutil.copytree(family / name, tmp_path / name)
        prefix = "" if name == "base" else "bert."
        more = {prefix + "embeddings.position_ids": torch.arange(32)[None]}
        save_file(tensors[name] | more, tmp_path / name / "model.safetensors")
    chosen = recipe(tmp_path, models=["sentiment"], dtype="float16")
    run(plan(chosen), tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(merged["embeddings.position_ids"], torch.arange(32)[None])
    assert merged["embeddings.word_embeddings.weight"].dtype == torch.float16


def llama(folder, seed, *, tied=True, broken=False):
    """A tiny decoder whose file has both copies of its tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
            vocab_size=20, tie_word_embeddings=tied,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].clone() + (1 if broken else 0)
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors")


def test_tied_weights_count_once_and_stay_equal(tmp_path):
    for seed, name in enumerate(("base", "a", "b")):
        llama(tmp_path / name, seed)
    made = plan(recipe(tmp_path, models=["a", "b"], parameters={"density": 0.5}))
    stored = load_file(tmp_path / "base" / "model.safetensors")
    assert made.numel == sum(t.numel() for t in stored.values()) - 20 * 16
    assert made.to_dict()["tied"] == {"lm_head.weight": "model.embed_tokens.weight"}
    run(made, tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])


def test_copies_that_differ_are_refused(tmp_path):
    for seed, name in enumerate(("base", "a")):
        llama(tmp_path / name, seed, broken=name == "a")
    with pytest.raises(AlliageError, match=r"ties it to .* but the two differ"):
        run(plan(recipe(tmp_path, models=["a"])), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_without_configuration_is_noted(family, tmp_path):
    (tmp_path / "base").mkdir()
    shutil.copy(family / "base" / "model.safetensors", tmp_path / "base")
    made = plan(recipe(family).model_copy(update={"base": str(tmp_path / "base")}))
    assert made.problems == []
    assert "no config.json" in made.notes[0]


def test_inputs_are_not_changed(family, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in family.rglob("*") if p.is_file()}
    run(plan(recipe(family)), tmp_path / "out")
    assert {p: p.stat().st_mtime_ns for p in family.rglob("*") if p.is_file()} == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """A ten times larger model takes no more anonymous memory."""
    from benchmarks.merge_scaling import measure_run

    peaks = {}
    for label, layers in (("small", 2), ("large", 20)):
        for seed, name in enumerate(("base", "a", "b", "c")):
            generator = torch.Generator().manual_seed(seed)
            (tmp_path / label / name).mkdir(parents=True)
            tensors = {
                f"layers.{i}.weight": torch.randn(1024, 1024, generator=generator)
                for i in range(layers)
            }
            save_file(tensors, tmp_path / label / name / "model.safetensors")
        home = tmp_path / label
        chosen = {"method": "ties", "base": str(home / "base")}
        chosen["models"] = [str(home / name) for name in "abc"]
        peaks[label] = measure_run(chosen, home / "out", memory=64 * 2**20)["peak"]
    one_large_model = 20 * 2**20 * 4
    assert peaks["large"] < one_large_model + 16 * 2**20
    assert peaks["large"] < 1.5 * peaks["small"] + 16 * 2**20


def test_a_merge_of_python_has_the_settings_of_the_command(family, tmp_path):
    seen = []
    models = [family / "sentiment", family / "topics"]
    for name, settings in (("one", {}), ("other", {"memory": 2**22, "shard_bytes": 2**14})):
        alliage.merge(
            "average", models=models, out=tmp_path / name, tokenizer=models[1],
            on_event=lambda stage, *_: seen.append(stage), **settings,
        )  # fmt: skip
    assert "merging" in seen
    whole = load_file(tmp_path / "one" / "model.safetensors")
    shards = sorted((tmp_path / "other").glob("*.safetensors"))
    assert len(shards) > 1
    parts = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
