"""Files of statistics of real architectures, against transformers and numpy by themselves."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import alliage
from alliage.checkpoints.statistics import open_statistics
from alliage.errors import UsageError
from alliage.statistics import collect_fisher, collect_regmean
from tests.statistics.models import MOOD, SENTENCES, SHAPES, STARS, STORIES, TAGS

OF_ALL = [("gpt", STORIES), ("t5", STORIES), ("vit", SHAPES), ("tags", TAGS), ("stars", STARS)]


def model_of(folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def jacobian_fisher(model, tokenizer):
    """Mean over sentences of Σ_c p_c (∂ log p_c)², from Jacobians of all classes at once."""
    names = [name for name, _ in model.named_parameters()]
    total = dict.fromkeys(names, 0.0)
    for text in SENTENCES:
        inputs = dict(tokenizer(text, return_tensors="pt"))

        def log_p(*values, inputs=inputs):
            given = dict(zip(names, values, strict=True))
            answer = torch.func.functional_call(model, given, kwargs=inputs)
            return answer.logits[0].log_softmax(-1)

        values = tuple(p.detach() for p in model.parameters())
        p = log_p(*values).exp().double()
        jacobians = torch.autograd.functional.jacobian(log_p, values)
        for name, jacobian in zip(names, jacobians, strict=True):
            square = torch.einsum("c,c...->...", p, jacobian.double().square())
            total[name] = total[name] + square / len(SENTENCES)
    return total


def test_the_fisher_information_of_a_bert_is_its_jacobians(family, tmp_path):
    out = tmp_path / "f.safetensors"
    record = collect_fisher(family / "sentiment", MOOD, out)
    assert (record.examples, record.labels, record.without) == (5, "expected", 0)
    found = load_file(out)
    expected = jacobian_fisher(*model_of(family / "sentiment"))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-3, atol=1e-9)
    assert max(float(tensor.max()) for tensor in found.values()) > 1e-3


def layer_inputs(model, tokenizer, texts=SENTENCES):
    """Every linear layer's inputs [N, d], one sentence at a time: there is no padding."""
    found = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, given, name=name: found.setdefault(name, []).append(
                given[0].reshape(-1, given[0].shape[-1])
            )
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.no_grad():
        for text in texts:
            model(**tokenizer(text, return_tensors="pt"))
    for handle in handles:
        handle.remove()
    return {name: torch.cat(rows).double().numpy() for name, rows in found.items()}


@pytest.mark.parametrize(("batch_size", "memory"), [(32, 2**30), (1, 2**30), (2, 8 * 32 * 32)])
def test_inputs_of_layers_without_padding_in_any_batches_and_passes(
    family, tmp_path, batch_size, memory
):
    out = tmp_path / "g.safetensors"
    record = collect_regmean(family / "sentiment", MOOD, out, batch_size=batch_size, memory=memory)
    assert (record.passes > 1) == (memory < 2**30)
    found = load_file(out)
    inputs = layer_inputs(*model_of(family / "sentiment"))
    assert found.keys() == {f"{n}.weight{part}" for n in inputs for part in ("", ".input_mean")}
    for name, rows in inputs.items():
        gram = found[f"{name}.weight"].numpy()
        np.testing.assert_allclose(gram, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)
        mean = found[f"{name}.weight.input_mean"].numpy()
        np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-4, atol=1e-6)
    assert len(inputs["bert.encoder.layer.0.output.dense"]) > 5  # one for each token
    assert len(inputs["classifier"]) == 5  # one for each sentence


def test_a_merged_layer_is_the_least_squares_of_the_real_inputs(family, tmp_path):
    """min Σ E‖(W − Wᵢ)x‖² over the inputs themselves, by numpy's lstsq."""
    models, inputs = [], []
    for seed, name in enumerate(("a", "b")):
        shutil.copytree(family / "sentiment", tmp_path / name)
        model, tokenizer = model_of(tmp_path / name)
        with torch.no_grad():
            draw = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
        model.save_pretrained(tmp_path / name)
        collect_regmean(tmp_path / name, MOOD, tmp_path / name / "regmean.safetensors")
        models.append(dict(model.state_dict()))
        inputs.append(layer_inputs(model, tokenizer))
    alliage.merge(
        "regmean", models=[tmp_path / "a", tmp_path / "b"], out=tmp_path / "out", alpha=1.0
    )
    merged = load_file(tmp_path / "out" / "model.safetensors")
    compared = 0
    for layer in inputs[0]:
        name = f"{layer}.weight"
        if name not in merged:
            continue
        rows = [each[layer] / len(each[layer]) ** 0.5 for each in inputs]
        answers = [
            x @ model[name].double().numpy().T for x, model in zip(rows, models, strict=True)
        ]
        x, y = np.concatenate(rows), np.concatenate(answers)
        solution, _, rank, values = np.linalg.lstsq(x, y, rcond=None)
        ours = merged[name].double().numpy().T
        least = np.linalg.norm(x @ solution - y)
        mean = sum(model[name].double().numpy() for model in models).T / 2
        assert np.linalg.norm(x @ ours - y) <= least + 1e-4 * np.linalg.norm(y), layer
        assert np.linalg.norm(x @ mean - y) > 1.5 * least, layer  # plain averaging is worse
        if rank == x.shape[1] and values[-1] > 1e-2 * values[0]:
            np.testing.assert_allclose(ours, solution, atol=1e-3)
            compared += 1
    assert compared  # of some layers there is one solution alone


@pytest.mark.parametrize(("name", "task"), OF_ALL, ids=[name for name, _ in OF_ALL])
def test_every_weight_is_named_as_in_the_files(zoo, tmp_path, name, task):
    with alliage.open(zoo / name) as checkpoint:
        shapes = {n: s.shape for n, s in checkpoint.specs().items() if n not in checkpoint.ties}
    record = collect_fisher(zoo / name, task, tmp_path / "f.safetensors")
    found = load_file(tmp_path / "f.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == shapes
    assert record.labels == ("sampled" if task in (STORIES, TAGS) else "expected")
    informed = [key for key, tensor in found.items() if tensor.any()]
    assert len(informed) > 0.9 * len(shapes)
    collect_regmean(zoo / name, task, tmp_path / "g.safetensors")
    grams = load_file(tmp_path / "g.safetensors")
    layers = [key for key in grams if not key.endswith(".input_mean")]
    turned = set(open_statistics(tmp_path / "g.safetensors").origin.transposed)
    for key in layers:
        inputs = shapes[key][0] if key in turned else shapes[key][1]
        assert grams[key].shape == (inputs, inputs)
        assert torch.linalg.eigvalsh(grams[key].double())[0] > -1e-5
    # GPT-2's four layers of each of two blocks, which are stored the other way round
    assert len(turned) == (8 if name == "gpt" else 0)
    assert turned <= set(layers)
    assert len(layers) >= 8


def test_gpt2s_inputs_are_of_the_side_that_they_enter(zoo, tmp_path):
    from transformers import AutoModelForCausalLM

    collect_regmean(zoo / "gpt", STORIES, tmp_path / "g.safetensors")
    found = load_file(tmp_path / "g.safetensors")
    model = AutoModelForCausalLM.from_pretrained(zoo / "gpt").eval()
    seen = []
    layer = model.transformer.h[1].mlp.c_proj
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0][0].double()))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(zoo / "gpt")
    with torch.no_grad():
        for example in STORIES.splits["train"]:
            ids = tokenizer(f"{example.inputs[0]} {example.label}").input_ids
            model(torch.tensor([[*ids, 3]]))
    rows = torch.cat(seen)
    assert rows.shape[1] == 64
    torch.testing.assert_close(
        found["transformer.h.1.mlp.c_proj.weight"].double(), rows.T @ rows / len(rows),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


def test_an_adapter_has_the_statistics_of_the_merged_weights(family, tmp_path):
    applied = tmp_path / "applied"
    alliage.apply(family / "sentiment-lora", out=applied)
    adapted, full = tmp_path / "lora.safetensors", tmp_path / "full.safetensors"
    task = MOOD
    for collect in (collect_fisher, collect_regmean):
        collect(family / "sentiment-lora", task, adapted)
        collect(applied, task, full)
        ours, theirs = load_file(adapted), load_file(full)
        with alliage.open(family / "base") as base:
            names = set(base.specs())
        assert {n for n in ours if not n.endswith(".input_mean")} <= names
        shared = 0
        for name, tensor in ours.items():
            expected = theirs.get(name, theirs.get(f"bert.{name}"))
            torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-6)
            shared += 1
        assert shared > 10
        adapted.unlink()
        full.unlink()


def test_what_the_file_says_of_itself(family, tmp_path):
    out = tmp_path / "new" / "f.safetensors"
    collect_fisher(family / "sentiment-lora", MOOD, out, labels="sampled", seed=3, examples=2)
    with alliage.open(out) as file:
        metadata = file.sources[0].metadata
    told = {key: metadata[key] for key in ("kind", "task", "split", "examples", "labels", "seed")}
    assert told == {
        "kind": "fisher", "task": "mood", "split": "train", "examples": "2",
        "labels": "sampled", "seed": "3",
    }  # fmt: skip
    assert metadata["alliage"] == alliage.__version__
    adapter, base = json.loads(metadata["models"])
    assert (adapter["role"], base["role"]) == ("model", "base")
    assert adapter["files"][-1]["file"] == "adapter_model.safetensors"
    assert all(len(entry["sha256"]) == 64 for entry in adapter["files"] + base["files"])


def test_the_same_run_writes_the_same_bytes_and_seeds_differ(family, tmp_path):
    def written(name, **more):
        collect_fisher(family / "sentiment", MOOD, tmp_path / f"{name}.safetensors", **more)
        return (tmp_path / f"{name}.safetensors").read_bytes()

    assert written("a") == written("b")
    assert written("c", labels="sampled", seed=1) == written("d", labels="sampled", seed=1)
    assert written("e", labels="sampled", seed=2) != written("f", labels="sampled", seed=1)


def test_progress_counts_examples(family, tmp_path):
    seen = []
    collect_fisher(
        family / "sentiment", MOOD, tmp_path / "f.safetensors", on_event=lambda *e: seen.append(e)
    )
    assert [event[1:] for event in seen] == [(done, 5) for done in range(1, 6)]
    seen.clear()
    collect_regmean(
        family / "sentiment", MOOD, tmp_path / "g.safetensors", on_event=lambda *e: seen.append(e)
    )
    assert seen[-1][1:] == (5, 5)


def test_what_cannot_be_done_is_refused_and_leaves_nothing(family, zoo, tmp_path):
    out = tmp_path / "f.safetensors"
    with pytest.raises(UsageError, match=r"each token of the vocabulary is a class.*sampled"):
        collect_fisher(zoo / "gpt", STORIES, out, labels="expected")
    with pytest.raises(UsageError, match=r"no labels 'expcted'. Did you mean 'expected'\?"):
        collect_fisher(family / "sentiment", MOOD, out, labels="expcted")
    with pytest.raises(UsageError, match=r"mood: validation: no such split"):
        collect_fisher(family / "sentiment", MOOD, out, split="validation")
    with pytest.raises(UsageError, match=r"a \.safetensors file. Write f\.safetensors"):
        collect_fisher(family / "sentiment", MOOD, tmp_path / "f.bin")
    assert not list(tmp_path.iterdir())
    out.touch()
    with pytest.raises(UsageError, match="exists already"):
        collect_regmean(family / "sentiment", MOOD, out)
