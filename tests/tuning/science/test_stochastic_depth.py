"""Layers of real architectures skipped at random: by hand, and by the binomial's own test."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import scipy.stats
import torch

from alliage.errors import AlliageError, UsageError
from alliage.tuning.science import stochastic_depth
from alliage.tuning.science.dropout import places, set_rate
from alliage.tuning.science.stochastic_depth import (
    StochasticDepth,
    StochasticDepthSettings,
    drop_path,
    rates_by_depth,
    stacks,
)
from tests.conftest import bert_config


def vit(layers=3):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    return ViTModel(
        ViTConfig(
            image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=layers,
            num_attention_heads=2, intermediate_size=32, initializer_range=0.3,
        )
    )  # fmt: skip


def test_rates_rise_linearly_with_depth():
    assert rates_by_depth(0.2, 3) == [0, 0.1, 0.2]
    assert rates_by_depth(0.2, 1) == [0]


def test_an_example_is_dropped_whole_or_scaled():
    torch.manual_seed(1)
    rate, count = 0.3, 4000
    dropped = drop_path(torch.ones(count, 3, 2, dtype=torch.float64), rate).flatten(1)
    scaled = torch.full((6,), 1 / 0.7, dtype=torch.float64)
    zero = (dropped == 0).all(1)
    torch.testing.assert_close(dropped[~zero], scaled.expand(int((~zero).sum()), 6))
    assert scipy.stats.binomtest(int(zero.sum()), count, rate).pvalue > 1e-3


def test_a_layer_gives_its_input_or_the_scaled_residual():
    torch.manual_seed(2)
    model = vit(1)
    (layers,) = stacks(model)
    x = torch.randn(64, 5, 16)
    own = layers[0].eval()(x)
    skipping = StochasticDepth(layers)
    skipping.rates = [0.25]
    torch.testing.assert_close(layers[0](x), own, rtol=0, atol=0)  # outside training
    mixed = layers[0].train()(x)
    scaled = x + (own - x) / 0.75
    skipped = (mixed == x).all((1, 2))
    assert 0 < skipped.sum() < 64
    torch.testing.assert_close(mixed[~skipped], scaled[~skipped])
    skipping.remove()
    torch.testing.assert_close(layers[0](x), own)


def test_names_of_weights_stay_and_hidden_states_are_recorded():
    model = vit()
    before = list(model.state_dict())
    skipping = StochasticDepth(stacks(model)[0])
    assert list(model.state_dict()) == before
    recorded = model.eval()(torch.zeros(1, 1, 8, 8), output_hidden_states=True).hidden_states
    assert len(recorded) == 4
    skipping.remove()
    assert all("forward" not in vars(module) for module in model.modules())


def layers_of(name):
    import transformers

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_attention_heads": 2, "vocab_size": 30}
    if name == "bert":
        return transformers.BertForSequenceClassification(bert_config()), [2]
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=3, n_head=2)
        return transformers.GPT2LMHeadModel(config), [3]
    if name == "llama":
        config = transformers.LlamaConfig(**small, intermediate_size=32, num_hidden_layers=3)
        return transformers.LlamaForCausalLM(config), [3]
    if name == "t5":
        config = transformers.T5Config(
            vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=3,
            num_heads=2, decoder_start_token_id=0,
        )  # fmt: skip
        return transformers.T5ForConditionalGeneration(config), [2, 3]
    config = transformers.ConvNextConfig(
        num_channels=1, patch_size=2, num_stages=2, depths=[1, 2], hidden_sizes=[8, 16],
        layer_scale_init_value=1.0,
    )  # fmt: skip
    return transformers.ConvNextForImageClassification(config), [3]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "convnext"])
def test_every_architecture_trains_with_all_examples_skipping_some_layers(name):
    model, depths = layers_of(name)
    set_rate(places(model), 0.0)
    found = stacks(model)
    assert [len(layers) for layers in found] == depths
    for layers in found:
        StochasticDepth(layers).rates = [0.9] * len(layers)
    if name == "convnext":
        inputs = {"pixel_values": torch.randn(4, 1, 8, 8), "labels": torch.tensor([0, 1, 0, 1])}
    else:
        ids = torch.randint(5, 20, (4, 6))
        labels = torch.tensor([0, 1, 0, 1]) if name == "bert" else ids
        inputs = {"input_ids": ids, "labels": labels}
    quiet = model.eval()(**inputs).loss
    loud = {round(model.train()(**inputs).loss.item(), 6) for _ in range(5)}
    assert round(quiet.item(), 6) not in loud
    assert len(loud) > 1
    loss = model(**inputs).loss
    loss.backward()
    assert loss.isfinite()


def test_the_callback_holds_for_the_run_and_follows_its_steps():
    model = vit()
    settings = StochasticDepthSettings(rate=0.2, mode="late", cutoff=0.5)
    callback = stochastic_depth.callback(settings, model)
    callback.on_train_begin(None, None, None)
    seen = []
    for step in range(2):
        callback.on_step_begin(None, SimpleNamespace(global_step=step, max_steps=2), None)
        seen.append(callback.skipped[0].rates)
    assert seen == [[0, 0, 0], [0, 0.1, 0.2]]
    callback.on_train_end(None, None, None)
    assert all("forward" not in vars(module) for module in model.modules())


def test_what_cannot_be_skipped_is_refused():
    with pytest.raises(UsageError, match="no stack of layers"):
        stochastic_depth.callback(StochasticDepthSettings(rate=0.1), torch.nn.Linear(2, 2))
    layer = torch.nn.Linear(2, 3)
    skipping = StochasticDepth([layer])
    skipping.rates = [0.5]
    with pytest.raises(AlliageError, match=r"Linear makes \[1, 3\] of \[1, 2\]"):
        layer(torch.zeros(1, 2))
