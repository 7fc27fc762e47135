"""mergekit's YAML, merged by mergekit's own command and by Alliage, on small real checkpoints.

Checked with mergekit 0.1.5. Gradients run over t = i / (n − 1), layer i of the n of a slice (1 for
an only one); embeddings, final norms and heads stand at t = 0, the first value. A base that is not
listed is one more input, even of linear.

Merges in float32 that only multiply, add and divide in the order of the models are equal bit by
bit. Trimmed bfloat16 models are not compared: their differences have many equal magnitudes, and
mergekit leaves open which of them stay.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alliage.merging import load_recipe, plan, run
from tests.conftest import shift

pytestmark = pytest.mark.real

# The recipe, and by how many roundings of its largest input a merged entry may differ.
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
    for number, (text, _) in enumerate(RECIPES.values()):
        for family, folder in families.items():
            text = text.replace("{" + family + "}", str(folder))
        (home / f"recipe{number}.yml").write_text(text)
    return home


@pytest.fixture(scope="module")
def mergekit(peers, recipes) -> Path:
    """The folder of what mergekit made of them."""
    peers.run("python", Path(__file__).parent / "peers" / "run_mergekit_yaml.py", recipes)
    return recipes


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def settings(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_mergekits_yaml_makes_the_model_that_mergekit_makes(mergekit, tmp_path, name):
    number, steps = list(RECIPES).index(name), RECIPES[name][1]
    made = plan(load_recipe(mergekit / f"recipe{number}.yml"), out=tmp_path / "out")
    assert not made.problems
    run(made, tmp_path / "out")
    found, expected = tensors(tmp_path / "out"), tensors(mergekit / f"recipe{number}")
    assert found.keys() == expected.keys()
    for tensor, theirs in expected.items():
        assert found[tensor].dtype == theirs.dtype, tensor
        bound = steps * torch.finfo(theirs.dtype).eps * theirs.abs().max()
        assert ((found[tensor].float() - theirs.float()).abs() <= bound).all(), tensor
    layers = "n_layer" if "tied" in name else "num_hidden_layers"
    assert settings(tmp_path / "out")[layers] == settings(mergekit / f"recipe{number}")[layers]
