import pytest
import torch

import alliage
from alliage.vectors import Combination, WholeModel
from tests.merging.test_odd_inputs import store, three


@pytest.fixture
def model(tmp_path):
    number, other, _ = three((3, 5))
    tensors = {
        "embed_tokens.weight": number,
        "layers.0.weight": other.bfloat16(),
        "layers.0.ids": torch.arange(4),
        "lm_head.weight": number.clone(),
    }
    config = {"model_type": "llama", "tie_word_embeddings": True}
    return tensors, alliage.open(store(tmp_path / "model", tensors, config=config))


def test_every_weight_once_and_no_buffer(model):
    tensors, checkpoint = model
    vector = WholeModel(checkpoint)
    assert vector.shapes == {"embed_tokens.weight": (3, 5), "layers.0.weight": (3, 5)}
    assert (vector.name, vector.base, vector.heads) == ("model", None, ())
    assert vector.source("layers.0.weight").dtype == "BF16"
    for name in vector.shapes:
        assert torch.equal(vector.delta(name), tensors[name].float())


def test_any_range_and_less_what_is_given(model):
    tensors, checkpoint = model
    vector, flat = WholeModel(checkpoint), tensors["layers.0.weight"].float().flatten()
    base = torch.arange(4.0)
    assert torch.equal(vector.block("layers.0.weight", 2, 6, base), flat[2:6] - base)
    assert torch.equal(base, torch.arange(4.0))
    assert torch.equal(vector.weights("layers.0.weight", 2, 6), flat[2:6])
    vector.weights("layers.0.weight", 0, 15).zero_()  # the caller's own
    assert torch.equal(vector.delta("layers.0.weight").flatten(), flat)
    assert vector.block("layers.0.weight", 4, 4).shape == (0,)


@pytest.mark.parametrize("name", ["layers.0.ids", "lm_head.weight", "layers.1.weight"])
def test_what_is_no_parameter_is_refused_by_name(model, name):
    vector = WholeModel(model[1], name="mine")
    with pytest.raises(KeyError, match=rf"{name}: not in mine"):
        vector.weights(name, 0, 1)
    with pytest.raises(KeyError, match=rf"{name}: not in mine"):
        vector.source(name)


def test_it_takes_part_in_sums(model):
    tensors, checkpoint = model
    both = Combination([(1.0, WholeModel(checkpoint)), (-0.5, WholeModel(checkpoint))])
    assert torch.equal(both.delta("embed_tokens.weight"), tensors["embed_tokens.weight"] / 2)
