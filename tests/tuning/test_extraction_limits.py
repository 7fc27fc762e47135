"""What an adapter cannot hold of a tuned model, and what is not extracted at all."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage.errors import AlliageError, UsageError
from tests.conftest import bert_config
from tests.merging.test_applying import sequence_model
from tests.tuning.test_extraction import difference, load, outputs, pair


def masked():
    from transformers import BertForMaskedLM

    return BertForMaskedLM(bert_config())


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
