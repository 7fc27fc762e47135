"""The families that merges are timed on are what they are said to be."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from benchmarks._models import BASE, SIZES, TUNED, make_family, weight_files
from safetensors.torch import load_file


def digests(family):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in weight_files(family)]


def test_transformers_loads_every_model_without_missing_or_unexpected_weights(family):
    from transformers import AutoTokenizer, LlamaForCausalLM

    for name in (BASE, *TUNED):
        model, info = LlamaForCausalLM.from_pretrained(family / name, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
        assert AutoTokenizer.from_pretrained(family / name).unk_token == "<unk>"
        assert json.loads((family / name / "config.json").read_text())["dtype"] == "bfloat16"


def test_tuned_models_differ_a_little_from_the_base_and_each_in_its_own_way(family):
    base, *tuned = (load_file(path) for path in weight_files(family))
    name = "model.layers.1.mlp.up_proj.weight"
    deltas = [(model[name].float() - base[name].float()).flatten() for model in tuned]
    assert base[name].dtype == torch.bfloat16
    for number, delta in enumerate(deltas):
        assert 0 < delta.norm() < 0.2 * base[name].float().norm()
        for other in deltas[:number]:
            assert abs(torch.cosine_similarity(delta, other, dim=0)) < 0.1


def test_the_same_bytes_are_made_anywhere(family, tmp_path):
    assert digests(make_family("0.1M", tmp_path)) == digests(family)


def test_a_family_that_is_there_is_used_again(family):
    before = [path.stat().st_mtime_ns for path in weight_files(family)]
    assert make_family("0.1M", family.parent) == family
    assert [path.stat().st_mtime_ns for path in weight_files(family)] == before


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_named_after_their_parameters(size):
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SIZES[size]))
    count = sum(parameter.numel() for parameter in model.parameters())
    scale, form = (1e9, ".1f") if size.endswith("B") else (1e6, ".1f" if "." in size else ".0f")
    assert f"{count / scale:{form}}{size[-1]}" == size
