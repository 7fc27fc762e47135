from __future__ import annotations

import pytest
import torch

from alliage.errors import UsageError
from alliage.tuning import parse_recipe
from alliage.tuning.adapters import (
    add_adapter,
    fresh_modules,
    last_of_mlp,
    resolve_targets,
)

INPUTS = {"model": "base", "task": "t"}
MODULES = [
    f"vit.layers.{layer}.{name}"
    for layer in range(2)
    for name in ("attention.q_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")
] + ["classifier"]


def test_kinds_and_names_become_ends_of_names():
    assert resolve_targets(["query", "value"], MODULES, "lora.targets") == [
        "attention.q_proj",
        "attention.v_proj",
    ]
    assert resolve_targets(["q_proj"], MODULES, "lora.targets") == ["q_proj"]
    assert resolve_targets(["mlp"], MODULES, "lora.targets") == ["mlp.fc1", "mlp.fc2"]
    bert = ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.0.output.dense"]
    assert resolve_targets(["query"], bert, "lora.targets") == ["query"]


def test_an_end_that_two_kinds_of_modules_share_is_not_used():
    """BERT's feed-forward block ends in output.dense, and so does its attention."""
    inside = (
        "attention.self.query",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
    names = [f"encoder.layer.{layer}.{name}" for layer in range(2) for name in inside]
    assert resolve_targets(["mlp"], names, "lora.targets") == [
        "encoder.layer.0.output.dense", "encoder.layer.1.output.dense", "intermediate.dense"
    ]  # fmt: skip
    assert last_of_mlp(names) == ["encoder.layer.0.output.dense", "encoder.layer.1.output.dense"]
    assert last_of_mlp(MODULES) == ["mlp.fc2"]


def test_every_wrong_target_gets_the_nearest_name():
    with pytest.raises(UsageError) as caught:
        resolve_targets(["qury", "q_prj", "value"], MODULES, "lora.targets")
    first, second = map(str, caught.value.problems)
    assert first.startswith("lora.targets: qury: matches no module. Did you mean 'query'")
    assert second.startswith("lora.targets: q_prj: matches no module. Did you mean")
    assert "'q_proj'" in second


def test_the_largest_modules_that_are_all_fresh():
    model = torch.nn.ModuleDict(
        {
            "body": torch.nn.ModuleDict(
                {"layer": torch.nn.Linear(2, 2), "pooler": torch.nn.Linear(2, 2)}
            ),
            "classifier": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)),
        }
    )
    fresh = {name for name, _ in model.named_parameters() if "layer" not in name}
    assert fresh_modules(model, fresh) == ["body.pooler", "classifier"]
    assert fresh_modules(model, set()) == []


@pytest.mark.filterwarnings("ignore::FutureWarning")  # between PEFT and transformers
def test_conv1d_weights_are_declared_transposed():
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2, num_labels=2)
    recipe = parse_recipe(INPUTS | {"method": "lora", "lora": {"rank": 2, "targets": ["qkv"]}})
    model = GPT2ForSequenceClassification(config)
    adapted = add_adapter(model, recipe, "sequence-classification", {"score.weight"})
    settings = adapted.peft_config["default"]
    assert settings.fan_in_fan_out
    assert settings.target_modules == {"attn.c_attn"}
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 + 1
