"""Rates over a run worked out by hand, and a model whose dropout they move."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from alliage.errors import UsageError
from alliage.tuning.science import dropout
from alliage.tuning.science.dropout import DropoutSettings, places, rate_at, set_rate
from tests.conftest import bert_config


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.4] * 6),
        ({"mode": "early"}, [0.4, 0.4, 0.4, 0, 0, 0]),
        ({"mode": "late"}, [0, 0, 0, 0.4, 0.4, 0.4]),
        ({"mode": "early", "shape": "linear"}, [0.4, 0.2, 0, 0, 0, 0]),
        ({"mode": "early", "cutoff": 1 / 6}, [0.4, 0, 0, 0, 0, 0]),
        ({"mode": "early", "cutoff": 1 / 6, "shape": "linear"}, [0.4, 0, 0, 0, 0, 0]),
        ({"mode": "late", "cutoff": 0.9}, [0, 0, 0, 0, 0, 0.4]),
    ],
)
def test_the_rate_of_each_step(settings, expected):
    chosen = DropoutSettings(rate=0.4, **settings)
    assert [rate_at(chosen, step, 6) for step in range(6)] == pytest.approx(expected)


def test_linear_goes_with_early_only():
    with pytest.raises(ValidationError, match="linear goes with mode: early"):
        DropoutSettings(rate=0.1, mode="late", shape="linear")


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_every_place_drops_including_attention_in_training_only(kind):
    from transformers import BertModel, ViTConfig, ViTModel

    torch.manual_seed(0)
    if kind == "bert":
        model = BertModel(bert_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
        inputs = {"input_ids": torch.tensor([[2, 5, 6, 7, 3]])}
    else:  # keeps the rate of attention as a number
        config = ViTConfig(
            image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=32,
        )  # fmt: skip
        model = ViTModel(config)
        inputs = {"pixel_values": torch.randn(1, 1, 8, 8)}
    still = model.eval()(**inputs).last_hidden_state
    where = places(model)
    attention = [(module, name) for module, name in where if "Attention" in type(module).__name__]
    assert len(attention) == (0 if kind == "bert" else 2)
    set_rate(where, 0.5)
    torch.testing.assert_close(model(**inputs).last_hidden_state, still)
    assert not torch.allclose(model.train()(**inputs).last_hidden_state, still, atol=1e-3)
    set_rate(where, 0.0)
    torch.testing.assert_close(model(**inputs).last_hidden_state, still)
    if kind == "vit":
        set_rate(attention, 0.5)
        assert not torch.allclose(model(**inputs).last_hidden_state, still, atol=1e-4)


def test_the_callback_follows_the_steps():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.9))
    callback = dropout.callback(DropoutSettings(rate=0.3, mode="late", cutoff=0.5), model)
    seen = []
    for step in range(4):
        callback.on_step_begin(None, SimpleNamespace(global_step=step, max_steps=4), None)
        seen.append(model[1].p)
    assert seen == [0, 0, 0.3, 0.3]


def test_the_dropout_of_lora_stays_its_own():
    from peft import LoraConfig, get_peft_model
    from transformers import BertModel

    model = get_peft_model(
        BertModel(bert_config(hidden_dropout_prob=0.0)),
        LoraConfig(lora_dropout=0.25, target_modules=["query"]),
    )
    callback = dropout.callback(DropoutSettings(rate=0.5), model)
    callback.on_step_begin(None, SimpleNamespace(global_step=0, max_steps=4), None)
    rates = {True: set(), False: set()}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            rates["lora_dropout" in name].add(module.p)
    assert rates == {True: {0.25}, False: {0.5}}


def test_a_model_without_any_is_refused():
    with pytest.raises(UsageError, match="Linear has no place for it"):
        dropout.callback(DropoutSettings(rate=0.1), torch.nn.Linear(2, 2))
