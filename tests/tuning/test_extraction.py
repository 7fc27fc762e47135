"""The oracles: NumPy's SVD (Eckart and Young), PEFT reading the adapter, and the forward pass."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from tests.merging.test_applying import distilbert, inputs, llama, sequence_model, vit

MATRIX = 2


def gpt2(**changes):
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 30, "bos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**settings, eos_token_id=0, **changes))


def resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], num_labels=3
    )
    return ResNetForImageClassification(config)


def move(model, moved, size=0.1):
    """Change the parameters whose names and shapes `moved` takes."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if moved(name, parameter):
                parameter += size * torch.randn(parameter.shape, generator=generator)


def is_matrix(name, parameter):
    return parameter.ndim >= MATRIX and name.endswith("weight")


def pair(folder, make, moved=is_matrix):
    """A base without its head, and the model tuned from it; the tuned model."""
    torch.manual_seed(0)
    model = make().eval()
    bare = model.base_model if hasattr(model, "classifier") or hasattr(model, "score") else model
    bare.save_pretrained(folder / "base")
    move(model, moved)
    model.save_pretrained(folder / "tuned")
    return model


def load(folder, like, adapter="adapter"):
    """The base with the adapter, as PEFT loads them; a key that is missing is an error."""
    from peft import PeftModel

    model = type(like).from_pretrained(folder / "base", config=like.config)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        return PeftModel.from_pretrained(model, str(folder / adapter)).eval()


def outputs(model, like):
    given = inputs(like)
    if like.config.model_type == "resnet":
        given = {"pixel_values": torch.randn(2, 1, 32, 32, generator=torch.Generator())}
    with torch.no_grad():
        return model(**given).logits


def product(folder, module, adapter="adapter"):
    """B·A of one module with the scale that adapter_config.json gives, by PEFT's own rules."""
    from peft import LoraConfig
    from peft.utils.other import get_pattern_key

    config = LoraConfig.from_pretrained(folder / adapter)
    tensors = load_file(folder / adapter / "adapter_model.safetensors")
    A, B = (tensors[f"base_model.model.{module}.lora_{part}.weight"].double() for part in "AB")
    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, module), config.r)
    pattern = config.alpha_pattern
    alpha = pattern.get(get_pattern_key(pattern, module), config.lora_alpha)
    assert A.shape[0] == B.shape[1] == rank
    assert alpha / rank == 1
    return B @ A


def difference(folder, name, base_name=None):
    tuned = load_file(folder / "tuned" / "model.safetensors")[name].double()
    return tuned - load_file(folder / "base" / "model.safetensors")[base_name or name].double()


ARCHITECTURES = {
    "bert": sequence_model,
    "two layers of head": distilbert,
    "decoder": llama,
    "conv1d": lambda: gpt2(tie_word_embeddings=False),
    "renamed in memory": vit,
    "convolutions": resnet,
}


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_with_all_of_the_rank_base_and_adapter_are_the_tuned_model(tmp_path, architecture):
    tuned = pair(tmp_path, ARCHITECTURES[architecture])
    record = alliage.extract(
        tmp_path / "tuned", base=tmp_path / "base", energy=1, out=tmp_path / "adapter"
    )
    assert record.kept == pytest.approx(1, abs=1e-9)
    assert record.left_out == ()
    found = outputs(load(tmp_path, tuned), tuned)
    torch.testing.assert_close(found, outputs(tuned, tuned), rtol=1e-4, atol=1e-5)
    unchanged = type(tuned).from_pretrained(tmp_path / "base", config=tuned.config).eval()
    assert (outputs(unchanged, tuned) - outputs(tuned, tuned)).abs().max() > 0.01


@pytest.mark.parametrize("architecture", ["bert", "conv1d", "convolutions"])
def test_applied_again_it_is_the_tuned_model(tmp_path, architecture):
    pair(tmp_path, ARCHITECTURES[architecture])
    alliage.extract(tmp_path / "tuned", base=tmp_path / "base", rank=99, out=tmp_path / "adapter")
    alliage.apply(tmp_path / "adapter", out=tmp_path / "again")
    with alliage.open(tmp_path / "tuned") as tuned, alliage.open(tmp_path / "again") as found:
        prefix = {"bert": "bert.", "convolutions": "resnet."}.get(architecture, "")
        for name in tuned.specs():
            here = name if name in found.specs() else name.removeprefix(prefix)
            torch.testing.assert_close(found.read(here), tuned.read(name), rtol=1e-5, atol=1e-6)


def test_a_known_update_of_low_rank_is_recovered(tmp_path):
    torch.manual_seed(0)
    model = sequence_model()
    model.bert.save_pretrained(tmp_path / "base")
    layer = model.bert.encoder.layer[1].attention.self
    B, A = torch.randn(16, 2) / 4, torch.randn(2, 16) / 4
    with torch.no_grad():
        layer.query.weight += B @ A
    model.save_pretrained(tmp_path / "tuned")
    record = alliage.extract(
        tmp_path / "tuned", base=tmp_path / "base", rank=2, out=tmp_path / "adapter"
    )
    assert [one.module for one in record.modules] == ["bert.encoder.layer.1.attention.self.query"]
    found = product(tmp_path, record.modules[0].module)
    torch.testing.assert_close(found.float(), B @ A, rtol=1e-5, atol=1e-6)
    assert record.kept == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("rank", [1, 3])
def test_each_module_loses_what_numpys_decomposition_says(tmp_path, rank):
    pair(tmp_path, sequence_model)
    record = alliage.extract(
        tmp_path / "tuned", base=tmp_path / "base", rank=rank, modules="q,mlp",
        out=tmp_path / "adapter",
    )  # fmt: skip
    assert len(record.modules) == 2 * 3
    kept = []
    for one in record.modules:
        delta = difference(tmp_path, f"{one.module}.weight", one.parameter).numpy()
        U, S, V = np.linalg.svd(delta, full_matrices=False)
        best = (U[:, :rank] * S[:rank]) @ V[:rank]
        np.testing.assert_allclose(product(tmp_path, one.module), best, rtol=1e-4, atol=1e-5)
        assert one.rank == rank
        assert one.norm == pytest.approx(np.linalg.norm(S), rel=1e-6)
        assert one.error == pytest.approx(np.linalg.norm(S[rank:]), rel=1e-5)
        assert one.kept == pytest.approx((S[:rank] ** 2).sum() / (S**2).sum(), rel=1e-5)
        kept.append((S[:rank] ** 2).sum())
    everything = sum(
        float((tuned - origin).double().square().sum()) for tuned, origin in bodies(tmp_path)
    )
    assert record.energy == pytest.approx(everything, rel=1e-6)
    assert record.kept == pytest.approx(sum(kept) / everything, rel=1e-5)


def bodies(folder):
    """Tuned and base tensors of a BERT, without its head."""
    tuned = load_file(folder / "tuned" / "model.safetensors")
    for name, origin in load_file(folder / "base" / "model.safetensors").items():
        yield tuned[f"bert.{name}"], origin


def test_an_energy_takes_the_fewest_directions_of_each_module(tmp_path):
    tuned = pair(tmp_path, sequence_model)
    record = alliage.extract(
        tmp_path / "tuned", base=tmp_path / "base", energy=0.6, out=tmp_path / "adapter"
    )
    ranks = {}
    for one in record.modules:
        delta = difference(tmp_path, f"{one.module}.weight", one.parameter).numpy()
        squares = np.linalg.svd(delta, compute_uv=False) ** 2
        ranks[one.module] = int((squares.cumsum() < 0.6 * squares.sum()).sum()) + 1
        assert one.kept >= 0.6
    assert {one.module: one.rank for one in record.modules} == ranks
    assert len(set(ranks.values())) > 1
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["rank_pattern"] == ranks
    loaded = load(tmp_path, tuned)
    modules = dict(loaded.get_base_model().named_modules())
    for name, rank in ranks.items():
        assert modules[name].r == {"default": rank}
        assert modules[name].scaling == {"default": 1}


def lora(folder, **settings):
    """A random adapter of rank 6; PEFT's adapted model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = sequence_model()
    model.bert.save_pretrained(folder / "base")
    adapted = get_peft_model(model, LoraConfig(r=6, lora_alpha=9, **settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "base")
    adapted.save_pretrained(folder / "tuned")
    return adapted.eval()


@pytest.mark.parametrize("stabilised", [False, True], ids=["lora", "rslora"])
def test_an_adapter_is_cut_down_by_its_factors(tmp_path, stabilised):
    adapted = lora(
        tmp_path, target_modules=["query", "dense"], use_rslora=stabilised, task_type="SEQ_CLS"
    )
    record = alliage.extract(tmp_path / "tuned", rank=2, out=tmp_path / "adapter")
    tensors = load_file(tmp_path / "tuned" / "adapter_model.safetensors")
    scale = 9 / (math.sqrt(6) if stabilised else 6)
    assert len(record.modules) == 2 * 4 + 1  # the pooler's dense too
    for one in record.modules:
        A, B = (
            tensors[f"base_model.model.{one.module}.lora_{part}.weight"].double().numpy()
            for part in "AB"
        )
        U, S, V = np.linalg.svd(scale * B @ A, full_matrices=False)
        best = (U[:, :2] * S[:2]) @ V[:2]
        np.testing.assert_allclose(product(tmp_path, one.module), best, rtol=1e-5, atol=1e-6)
        assert one.error == pytest.approx(np.linalg.norm(S[2:6]), rel=1e-6)
        assert one.norm == pytest.approx(np.linalg.norm(S), rel=1e-6)
    whole = alliage.extract(tmp_path / "tuned", rank=6, out=tmp_path / "whole")
    assert whole.kept == pytest.approx(1, abs=1e-9)
    like = adapted.get_base_model()
    found = outputs(load(tmp_path, like, "whole"), like)
    torch.testing.assert_close(found, outputs(adapted, like), rtol=1e-4, atol=1e-5)


def test_an_adapter_by_energy_keeps_embeddings_saved_whole(tmp_path):
    adapted = lora(tmp_path, target_modules=["value"], modules_to_save=["word_embeddings"])
    file = tmp_path / "tuned" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.bert.embeddings.word_embeddings.weight"
    tensors[name] += 0.5
    save_file(tensors, file)
    record = alliage.extract(tmp_path / "tuned", energy=0.5, out=tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert torch.equal(stored[name], tensors[name])
    moved = 0.25 * stored[name].numel()  # each entry by a half
    factors = sum(one.norm**2 for one in record.modules)
    assert record.energy == pytest.approx(moved + factors, rel=1e-5)
    lost = sum(one.error**2 for one in record.modules)
    assert record.kept == pytest.approx(1 - lost / record.energy, rel=1e-9)
    assert load(tmp_path, adapted.get_base_model()) is not None


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 2e-3), ("bfloat16", 1e-2)])
def test_the_error_is_that_of_what_was_written(tmp_path, dtype, digits):
    pair(tmp_path, sequence_model)
    record = alliage.extract(
        tmp_path / "tuned", base=tmp_path / "base", rank=16, dtype=dtype, modules="query",
        out=tmp_path / "adapter",
    )  # fmt: skip
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {str(tensor.dtype) for name, tensor in stored.items() if "lora" in name} == {
        f"torch.{dtype}"
    }
    for one in record.modules:
        delta = difference(tmp_path, f"{one.module}.weight", one.parameter)
        error = float((delta - product(tmp_path, one.module)).norm())
        assert one.error == pytest.approx(error, rel=1e-4)
        assert 1e-5 < one.error / one.norm < digits


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    pair(tmp_path, lambda: sequence_model(hidden_size=64, intermediate_size=256))
    before = torch.get_num_threads()
    for name, threads in (("one", 1), ("two", 2)):
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        alliage.extract(tmp_path / "tuned", base=tmp_path / "base", rank=2, out=tmp_path / name)
    torch.set_num_threads(before)
    for file in ("adapter_model.safetensors", "adapter_config.json", "alliage.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
