from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage.checkpoints import open as open_checkpoint
from alliage.errors import AlliageError, UsageError
from alliage.pruning import plan
from tests.pruning.models import SMALL, build


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert") / "whole"
    build("bert").save_pretrained(folder)
    return folder


@pytest.fixture
def copy(bert, tmp_path):
    """A copy of the model, to be damaged."""

    def make(config=None, rename=None):
        folder = tmp_path / "model"
        folder.mkdir()
        content = json.loads((bert / "config.json").read_text()) | (config or {})
        (folder / "config.json").write_text(json.dumps(content))
        tensors = load_file(bert / "model.safetensors")
        renamed = {(rename or str)(name): value for name, value in tensors.items()}
        renamed.pop("", None)
        save_file(renamed, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


def refusal(folder, **arguments) -> AlliageError:
    with open_checkpoint(folder) as checkpoint, pytest.raises(AlliageError) as caught:
        plan(checkpoint, **(arguments or {"keep_layers": [0]}))
    return caught.value


def test_plan_says_what_becomes_of_every_layer(bert):
    with open_checkpoint(bert) as checkpoint:
        made = plan(checkpoint, strategy="best-n", keep=3, scores=[1, 5, 2, 4, 3])
        specs = checkpoint.specs()
        per_layer = sum(s.nbytes for s in specs.values() if ".layer.1." in s.name)
        shown = made.to_dict()
    assert shown["stack"] == "bert.encoder.layer"
    assert shown["keep"] == [1, 3, 4]
    assert shown["remove"] == [0, 2]
    assert shown["renamed"] == {"1": 0, "3": 1, "4": 2}
    assert shown["bytes"] - shown["bytes_to_write"] == 2 * per_layer
    new = "bert.encoder.layer.2.attention.self.query.weight"
    assert made.origins[new] == "bert.encoder.layer.4.attention.self.query.weight"


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ({"keep_layers": []}, ["no layer would stay"]),
        ({"keep_layers": [0, 5, 7]}, ["there is no layer 5", "no layer 7: they go from 0 to 4"]),
        ({"keep_layers": [-1, 0]}, ["-1 is no layer's number"]),
        ({"keep_layers": [True, 2.0]}, ["True is no", "2.0 is no"]),
        ({"keep_layers": [0, 3, 3, 9]}, ["layer 3 is given twice", "there is no layer 9"]),
        ({"keep_layers": [3, 1]}, ["3,1 is not ascending", "Give 1,3."]),
        ({"keep_layers": [0], "keep": 1}, ["keep: goes with no list of layers"]),
        ({"strategy": "first"}, ["keep: missing"]),
        ({"keep": 2}, ["strategy: missing"]),
        ({"strategy": "frist", "keep": 9}, ["Did you mean 'first'?", "from 1 to 5, found 9"]),
    ],
)
def test_wrong_choices(bert, arguments, messages):
    error = refusal(bert, **arguments)
    assert isinstance(error, UsageError)
    for message in messages:
        assert message in str(error)


def test_everything_wrong_is_reported_at_once(copy, tmp_path):
    folder = copy({"num_hidden_layers": 7})
    error = refusal(folder, keep_layers=[1, 1], out=folder)
    assert error.exit_code == 2
    assert len(error.problems) == 3
    for message in ("exists already", "given twice", "is 7, the weights hold 5 layers"):
        assert message in str(error)


def test_holes_in_the_numbering(copy):
    folder = copy(rename=lambda name: "" if ".layer.2." in name else name)
    assert "go up to 4, but 2 are not there" in str(refusal(folder))


def test_no_config_or_a_single_file(copy, bert):
    folder = copy()
    (folder / "config.json").unlink()
    assert "no config.json" in str(refusal(folder))
    assert "no config.json" in str(refusal(bert / "model.safetensors"))


def test_an_adapter_is_refused_by_name(family):
    error = refusal(family / "sentiment-lora")
    assert "is an adapter" in str(error)
    assert "Prune the base" in str(error)


def test_weights_of_another_architecture_than_the_config_names(copy):
    folder = copy({"model_type": "distilbert"})
    assert "named [...].transformer.layer.0, found none" in str(refusal(folder))


def test_albert_shares_its_weights(tmp_path):
    from transformers import AlbertConfig, AlbertModel

    AlbertModel(AlbertConfig(**SMALL, embedding_size=8)).save_pretrained(tmp_path / "albert")
    assert "are one set of weights" in str(refusal(tmp_path / "albert"))


def test_gpt2_with_scaling_by_layer_number_may_only_lose_its_last_layers(tmp_path):
    build("gpt2", scale_attn_by_inverse_layer_idx=True).save_pretrained(tmp_path / "gpt2")
    assert "only the first layers can stay" in str(refusal(tmp_path / "gpt2", keep_layers=[0, 2]))
    with open_checkpoint(tmp_path / "gpt2") as checkpoint:
        assert plan(checkpoint, keep_layers=[0, 1]).keep == (0, 1)


def test_modernbert_keeps_its_first_layer(tmp_path):
    build("modernbert").save_pretrained(tmp_path / "modernbert")
    error = refusal(tmp_path / "modernbert", keep_layers=[1, 2])
    assert "layer 0 must stay" in str(error)


@pytest.mark.parametrize(
    ("config", "rename", "message"),
    [
        ({"is_encoder_decoder": True}, None, "several models (encoder, decoder)"),
        ({"text_config": {"model_type": "x"}}, None, "several models (text_config)"),
        ({"n_layers": 5}, None, "config.json has num_hidden_layers, n_layers of"),
        ({}, lambda name: name.replace("pooler", "pooler.0"), "bert.encoder.layer, bert.pooler"),
        ({}, lambda name: "" if "3.output.dense.bias" in name else name, "layer 3 holds other"),
        ({"layerwise": [1, 2, 3, 4, 5]}, None, "layerwise may have one entry for each layer"),
        ({"num_hidden_layers": 6}, None, "num_hidden_layers is 6, the weights hold 5"),
    ],
)
def test_unknown_architectures_are_refused_where_anything_is_uncertain(
    copy, config, rename, message
):
    error = refusal(copy({"model_type": "novel"} | config, rename))
    assert message in str(error)
    if "is 6" not in message:
        assert "Known: bert, camembert" in str(error)


def test_two_stacks_of_one_family(copy):
    folder = copy()
    tensors = load_file(folder / "model.safetensors")
    tensors["other.encoder.layer.0.weight"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert "found bert.encoder.layer, other.encoder.layer" in str(refusal(folder))
