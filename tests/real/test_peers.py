"""Whole merges of small real checkpoints, by the peers' own programs and by Alliage.

First mergekit's YAML, checked with mergekit 0.1.5. Gradients run over t = i / (n − 1), layer i of
the n of a slice (1 for an only one); embeddings, final norms and heads stand at t = 0, the first
value. A base that is not listed is one more input, even of linear.

Merges in float32 that only multiply, add and divide in the order of the models are equal bit by
bit. Of trimmed bfloat16 models only the numbers of entries are: their differences have many equal
magnitudes, and mergekit leaves open which of them stay.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alliage.merging import MergeRecipe, load_recipe, parse_recipe, plan, run
from tests.conftest import shift
from tests.real.peers import SCRIPTS

pytestmark = pytest.mark.real

TRIMMED = "ties of one bfloat16 model"

# The recipe, and by how many roundings of a tensor's largest entry its entries may differ.
RECIPES = {
    "ties": ("""
        merge_method: ties
        base_model: {llama}/base
        models:
          - {model: {llama}/a, parameters: {weight: 0.3, density: 0.5}}
          - {model: {llama}/b, parameters: {weight: 0.7, density: 0.21}}
          - {model: {llama}/c, parameters: {weight: 1.1}}
        parameters: {lambda: 0.8}
        dtype: float32
        """, 0),
    "ties of sums, and the base among the models": ("""
        merge_method: ties
        base_model: {llama}/base
        models:
          - {model: {llama}/base}
          - {model: {llama}/a, parameters: {weight: 0.3}}
          - {model: {llama}/b, parameters: {weight: -0.2}}
        parameters: {normalize: false, density: 0.3, int8_mask: true}
        """, 0),
    "ties with rules and gradients": ("""
        merge_method: ties
        base_model: {llama}/base
        models:
          - model: {llama}/a
            parameters:
              weight: [0.1, 0.9, 0.4]
              density: [{filter: mlp, value: [0.9, 0.1]}, {filter: norm, value: 1}, {value: 0.4}]
          - model: {llama}/b
            parameters: {weight: [{filter: lm_head, value: 0.2}, {value: [1, 0.5]}]}
        parameters: {density: 0.6}
        """, 0),
    "ties of one module": ("""
        merge_method: ties
        base_model: {llama}/base
        modules:
          default:
            models:
              - {model: {llama}/a, parameters: {weight: 1.0}}
              - {model: {llama}/c}
            parameters: {weight: 0.5}
        parameters: {density: 0.5, weight: 3.0}
        """, 0),
    "ties of tied weights": ("""
        merge_method: ties
        base_model: {gpt2}/base
        models: [{model: {gpt2}/a}, {model: {gpt2}/b}, {model: {gpt2}/c}]
        parameters: {weight: [1.0, 0.2], density: 0.3}
        """, 0),
    "ties of bfloat16 models": ("""
        merge_method: ties
        base_model: {bfloat16}/base
        models:
          - {model: {bfloat16}/a, parameters: {weight: 0.3}}
          - {model: {bfloat16}/b, parameters: {weight: 0.7}}
          - {model: {bfloat16}/c, parameters: {weight: 1.1}}
        dtype: float32
        out_dtype: bfloat16
        """, 0),
    "task arithmetic": ("""
        merge_method: task_arithmetic
        base_model: {llama}/base
        models:
          - {model: {llama}/a, parameters: {weight: [1.0, 0.0]}}
          - {model: {llama}/b, parameters: {weight: -0.5}}
          - {model: {llama}/c, parameters: {weight: 0.25}}
        parameters: {lambda: 0.7}
        """, 0),
    "breadcrumbs": ("""
        merge_method: breadcrumbs
        base_model: {llama}/base
        models:
          - {model: {llama}/a, parameters: {weight: 0.3, density: 0.5, gamma: 0.1}}
          - {model: {llama}/b, parameters: {weight: -0.7, density: [0.21, 0.9]}}
        parameters: {lambda: 0.8}
        """, 0),
    "breadcrumbs with elected signs": ("""
        merge_method: breadcrumbs_ties
        base_model: {llama}/base
        models: [{model: {llama}/a}, {model: {llama}/b}, {model: {llama}/c}]
        parameters: {weight: 0.5, density: 0.4, gamma: 0.05, normalize: true}
        """, 0),
    "della that drops nothing": ("""
        merge_method: della
        base_model: {llama}/base
        models: [{model: {llama}/a}, {model: {llama}/b}]
        parameters: {weight: [1.0, 0.5], epsilon: 0.1}
        """, 0),
    "sce": ("""
        merge_method: sce
        base_model: {llama}/base
        models: [{model: {llama}/a}, {model: {llama}/b}, {model: {llama}/c}]
        parameters: {select_topk: [{filter: mlp, value: 0.2}, {value: 0.6}]}
        """, 4),
    "ram": ("""
        merge_method: ram
        base_model: {llama}/base
        models: [{model: {llama}/a}, {model: {llama}/b}, {model: {llama}/c}]
        parameters: {epsilon: 0.01}
        """, 4),
    "ram, strengthened": ("""
        merge_method: ramplus_tl
        base_model: {llama}/base
        models: [{model: {llama}/a}, {model: {llama}/b}, {model: {llama}/c}]
        parameters: {epsilon: [0.01, 0.002], alpha: 2.0}
        """, 4),
    "nearswap": ("""
        merge_method: nearswap
        base_model: {llama}/a
        models: [{model: {llama}/b}, {model: {llama}/a}]
        parameters: {t: [0.001, 0.01]}
        """, 4),
    "linear": ("""
        merge_method: linear
        models:
          - {model: {llama}/a, parameters: {weight: 1.0}}
          - {model: {llama}/b, parameters: {weight: [0.0, 3.0]}}
        """, 4),
    "linear, not normalized": ("""
        merge_method: linear
        models:
          - {model: {llama}/a, parameters: {weight: 0.4}}
          - {model: {llama}/b, parameters: {weight: [{filter: self_attn, value: 0.9}]}}
        parameters: {normalize: false, weight: 0.1}
        """, 4),
    "linear with the base": ("""
        merge_method: linear
        base_model: {llama}/base
        models: [{model: {llama}/a}, {model: {llama}/b}]
        parameters: {weight: 1.0}
        """, 4),
    "linear of bfloat16 models": ("""
        merge_method: linear
        models:
          - {model: {bfloat16}/a, parameters: {weight: 0.3}}
          - {model: {bfloat16}/b, parameters: {weight: 0.6}}
        """, 1),
    "slerp": ("""
        merge_method: slerp
        base_model: {llama}/a
        models: [{model: {llama}/b}, {model: {llama}/a}]
        parameters:
          t: [{filter: self_attn, value: [0, 0.5, 1]}, {filter: mlp, value: [1, 0]}, {value: 0.3}]
        dtype: float32
        """, 16),
    "slerp of slices": ("""
        merge_method: slerp
        base_model: {llama}/a
        slices:
          - sources:
              - {model: {llama}/a, layer_range: [0, 3]}
              - {model: {llama}/b, layer_range: [0, 3]}
            parameters: {t: [0, 1]}
          - sources:
              - {model: {llama}/a, layer_range: [1, 2]}
              - {model: {llama}/b, layer_range: [3, 4]}
            parameters: {t: [0.2, 0.9]}
        """, 16),
    "stacked layers": ("""
        merge_method: passthrough
        slices:
          - sources: [{model: {llama}/a, layer_range: [0, 3]}]
          - sources:
              - model: {llama}/b
                layer_range: [1, 4]
                parameters: {scale: [{filter: o_proj, value: 0.5}, {value: 1.0}]}
        """, 0),
    TRIMMED: ("""
        merge_method: ties
        base_model: {bfloat16}/base
        models: [{model: {bfloat16}/a, parameters: {weight: 1.0, density: 0.3}}]
        dtype: float32
        out_dtype: bfloat16
        """, None),
}  # fmt: skip


def save_family(make, folder: Path, dtype: torch.dtype) -> Path:
    """A base and three models tuned from it: base, a, b, c."""
    torch.manual_seed(0)
    base = make().to(dtype)
    base.save_pretrained(folder / "base")
    for seed, name in enumerate("abc", start=1):
        tuned = make()
        tuned.load_state_dict(base.state_dict())
        shift(tuned, seed)
        tuned.to(dtype).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> Path:
    """The folder of the recipes' files."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    def llama():
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32, intermediate_size=48, num_hidden_layers=4, vocab_size=64,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            )
        )  # fmt: skip

    def gpt2():
        return GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, n_positions=32)
        )

    home = tmp_path_factory.mktemp("recipes")
    families = {
        "llama": save_family(llama, home / "llama", torch.float32),
        "bfloat16": save_family(llama, home / "bfloat16", torch.bfloat16),
        "gpt2": save_family(gpt2, home / "gpt2", torch.float32),
    }
    for name, (text, _) in RECIPES.items():
        for family, folder in families.items():
            text = text.replace("{" + family + "}", str(folder))
        (home / f"{name}.yml").write_text(text)
    return home


@pytest.fixture(scope="module")
def mergekit(peers, recipes) -> Path:
    """The folder of what mergekit made of them."""
    peers.run("python", SCRIPTS / "run_mergekit_yaml.py", recipes)
    return recipes


def merge(recipe: MergeRecipe, out: Path) -> Path:
    made = plan(recipe, out=out)
    assert not made.problems
    run(made, out)
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def settings(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("name", [name for name in RECIPES if name != TRIMMED])
def test_mergekits_yaml_makes_the_model_that_mergekit_makes(mergekit, tmp_path, name):
    out = merge(load_recipe(mergekit / f"{name}.yml"), tmp_path / "out")
    found, expected = tensors(out), tensors(mergekit / name)
    assert found.keys() == expected.keys()
    for tensor, theirs in expected.items():
        assert found[tensor].dtype == theirs.dtype, tensor
        bound = RECIPES[name][1] * torch.finfo(theirs.dtype).eps * theirs.abs().max()
        assert ((found[tensor].float() - theirs.float()).abs() <= bound).all(), tensor
    layers = "n_layer" if "tied" in name else "num_hidden_layers"
    assert settings(out)[layers] == settings(mergekit / name)[layers]


def test_as_many_entries_of_each_tensor_change_as_by_mergekit(mergekit, tmp_path):
    out = merge(load_recipe(mergekit / f"{TRIMMED}.yml"), tmp_path / "out")
    base, tuned = tensors(mergekit / "bfloat16" / "base"), tensors(mergekit / "bfloat16" / "a")
    expected = tensors(mergekit / TRIMMED)
    straddled = False
    for name, found in tensors(out).items():
        changed = found != base[name]
        assert torch.equal(found[changed], tuned[name][changed]), name
        assert int(changed.sum()) == int((expected[name] != base[name]).sum()), name
        magnitudes = (tuned[name].float() - base[name].float()).abs()
        straddled |= bool((magnitudes[~changed] == magnitudes[changed].min()).any())
    assert straddled  # the case in question: equal magnitudes, some kept and some not


def test_ties_of_whole_models_is_fusion_benchs(peers, recipes, tmp_path):
    models = [recipes / "llama" / name for name in "abc"]
    base = recipes / "llama" / "base"
    peers.run("python", SCRIPTS / "run_fusion_bench.py", base, *models, tmp_path / "theirs")
    content = {"method": "ties", "dialect": "fusion_bench", "base": str(base)}
    recipe = parse_recipe(content | {"models": [str(model) for model in models]})
    found, expected = tensors(merge(recipe, tmp_path / "ours")), tensors(tmp_path / "theirs")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
