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
from alliage.errors import AlliageError, UsageError
from tests.conftest import bert_config
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


def masked():
    from transformers import BertForMaskedLM

    return BertForMaskedLM(bert_config())


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


def test_what_lora_cannot_hold_is_reported_with_its_share(tmp_path):
    pair(tmp_path, masked, moved=lambda *_: True)
    base = tmp_path / "base"
    record = alliage.extract(tmp_path / "tuned", base=base, rank=16, out=tmp_path / "adapter")
    reasons = {one.parameter: one.reason for one in record.left_out}
    word = "bert.embeddings.word_embeddings.weight"
    assert reasons[word] == "tied to another layer, of which LoRA would change only one"
    assert reasons["bert.embeddings.LayerNorm.weight"] == "a norm"
    assert reasons["bert.encoder.layer.0.output.dense.bias"] == "a bias"
    for one in record.left_out:
        norm = float(difference(tmp_path, one.parameter).norm())
        assert one.norm == pytest.approx(norm, rel=1e-6)
    left = math.fsum(one.norm**2 for one in record.left_out)
    assert record.kept == pytest.approx(1 - left / record.energy, abs=1e-6)
    names = [*reasons, *(one.parameter for one in record.modules)]
    with alliage.open(base) as checkpoint:
        assert sorted(names) == sorted(set(checkpoint.specs()) - set(checkpoint.ties))


def test_convolutions_in_groups_stay_out(tmp_path):
    from transformers import ConvNextConfig, ConvNextModel

    config = ConvNextConfig(num_channels=1, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])
    pair(tmp_path, lambda: ConvNextModel(config))
    record = alliage.extract(
        tmp_path / "tuned", base=tmp_path / "base", rank=4, out=tmp_path / "adapter"
    )
    assert {one.reason for one in record.left_out} == {"a convolution in groups"}
    assert {len(one.shape) for one in record.modules} == {2, 4}


def test_weights_that_a_model_reads_past_their_module_stay_out(tmp_path):
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    config = DebertaV2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=30, max_position_embeddings=32, relative_attention=True,
        pos_att_type=["p2c", "c2p"],
    )  # fmt: skip
    tuned = pair(tmp_path, lambda: DebertaV2ForSequenceClassification(config))
    record = alliage.extract(
        tmp_path / "tuned", base=tmp_path / "base", energy=1, out=tmp_path / "adapter"
    )
    (left,) = record.left_out
    assert left.parameter == "encoder.rel_embeddings.weight"
    loaded = load(tmp_path, tuned)
    with torch.no_grad():  # the one thing that the adapter lacks
        moved = tuned.deberta.encoder.rel_embeddings.weight
        loaded.get_base_model().deberta.encoder.rel_embeddings.weight.copy_(moved)
    found = outputs(loaded, tuned)
    torch.testing.assert_close(found, outputs(tuned, tuned), rtol=1e-4, atol=1e-5)


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


def test_refusals_come_at_once_and_leave_nothing(tmp_path, family):
    out = tmp_path / "out"
    sentiment, base = family / "sentiment", family / "base"
    with pytest.raises(UsageError) as caught:
        alliage.extract(sentiment, base=base, out=out, modules="qery", dtype="int8", energy=2)
    messages = "\n".join(map(str, caught.value.problems))
    for message in ("no kind 'qery'. Did you mean 'query'", "no type 'int8'", "energy: must be"):
        assert message in messages
    for ranks in ({}, {"rank": 2, "energy": 0.5}):
        with pytest.raises(UsageError, match="expected one of the two"):
            alliage.extract(sentiment, base=base, out=out, **ranks)
    with pytest.raises(UsageError, match="at least 1, got 0"):
        alliage.extract(sentiment, base=base, out=out, rank=0)
    with pytest.raises(UsageError, match="no base given"):
        alliage.extract(sentiment, out=out, rank=1)
    with pytest.raises(AlliageError, match="does not differ from its base in any matrix"):
        alliage.extract(base, base=base, out=out, rank=1)
    with pytest.raises(UsageError, match="exists already"):
        alliage.extract(sentiment, base=base, out=tmp_path, rank=1)
    assert not list(tmp_path.iterdir())


def test_every_tensor_that_is_not_finite_is_named(tmp_path):
    pair(tmp_path, sequence_model)
    file = tmp_path / "tuned" / "model.safetensors"
    tensors = load_file(file)
    names = ["bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.1.output.dense.bias"]
    for name in names:
        tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(AlliageError) as caught:
        alliage.extract(tmp_path / "tuned", base=tmp_path / "base", rank=1, out=tmp_path / "out")
    found = [problem.where.partition(": ")[2] for problem in caught.value.problems]
    assert found == names
    assert not list(tmp_path.glob("*out*"))


def test_factors_too_large_for_their_type_are_refused_by_name(tmp_path):
    pair(tmp_path, sequence_model)
    file = tmp_path / "tuned" / "model.safetensors"
    tensors = load_file(file)
    tensors["bert.encoder.layer.0.output.dense.weight"].fill_(1e10)
    save_file(tensors, file)
    wanted = {"base": tmp_path / "base", "rank": 1}
    with pytest.raises(AlliageError, match=r"0\.output\.dense: .* into float16"):
        alliage.extract(tmp_path / "tuned", out=tmp_path / "out", dtype="float16", **wanted)
    assert not (tmp_path / "out").exists()
    record = alliage.extract(tmp_path / "tuned", out=tmp_path / "out", dtype="bfloat16", **wanted)
    assert record.kept > 0.999


@pytest.mark.parametrize(
    "config",
    [None, {}, {"model_type": "own"}, {"model_type": "bert", "hidden_size": "many"}],
    ids=["no file", "empty", "unknown type", "impossible"],
)
def test_a_model_that_transformers_does_not_have(tmp_path, config):
    pair(tmp_path, sequence_model)
    path = tmp_path / "tuned" / "config.json"
    path.unlink() if config is None else path.write_text(json.dumps(config))
    with pytest.raises(AlliageError, match="transformers has no model for its config"):
        alliage.extract(tmp_path / "tuned", base=tmp_path / "base", rank=1, out=tmp_path / "out")


@pytest.mark.parametrize("named", [["BertModelOfMine"], ["pipeline"], "BertModel", []])
def test_a_class_that_is_none_of_transformers_leaves_the_bare_model(tmp_path, named):
    from transformers import BertModel

    pair(tmp_path, lambda: BertModel(bert_config()))
    path = tmp_path / "tuned" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": named}))
    record = alliage.extract(
        tmp_path / "tuned", base=tmp_path / "base", rank=2, modules="q", out=tmp_path / "adapter"
    )
    assert [one.module for one in record.modules] == [
        f"encoder.layer.{layer}.attention.self.query" for layer in (0, 1)
    ]


def test_scales_have_no_low_rank(tmp_path):
    from peft import IA3Config, get_peft_model

    model = sequence_model()
    model.bert.save_pretrained(tmp_path / "base")
    config = IA3Config(target_modules=["key"], feedforward_modules=[])
    get_peft_model(model, config).save_pretrained(tmp_path / "scales")
    with pytest.raises(UsageError, match="its update has full rank"):
        alliage.extract(tmp_path / "scales", base=tmp_path / "base", rank=1, out=tmp_path / "out")
