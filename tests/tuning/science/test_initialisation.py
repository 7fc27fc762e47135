"""Distributions against scipy's, and torch's own functions where they take the same arguments."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from pydantic import ValidationError

from alliage.tuning.science.initialisation import InitialisationSettings, draw, initialise

OUT, IN = 200, 300
STDS = {
    ("xavier", "relu"): math.sqrt(2) * math.sqrt(2 / (OUT + IN)),
    ("xavier", "tanh"): 5 / 3 * math.sqrt(2 / (OUT + IN)),
    ("kaiming", "relu"): math.sqrt(2 / IN),
    ("kaiming", "linear"): math.sqrt(1 / IN),
}


def drawn(shape=(OUT, IN), **settings):
    weight = torch.empty(shape)
    draw(weight, InitialisationSettings(**settings), torch.Generator().manual_seed(0))
    return weight


@pytest.mark.parametrize(("family", "gain"), list(STDS))
@pytest.mark.parametrize("shape", ["normal", "uniform"])
def test_distributions_are_what_they_say(family, gain, shape):
    std = STDS[family, gain]
    cdf = (
        scipy.stats.norm(0, std) if shape == "normal"
        else scipy.stats.uniform(-math.sqrt(3) * std, 2 * math.sqrt(3) * std)
    ).cdf  # fmt: skip
    values = drawn(name=f"{family}_{shape}", gain=gain).flatten().numpy()
    assert scipy.stats.kstest(values, cdf).pvalue > 1e-3
    wrong = drawn(name=f"{family}_{shape}", gain=1.1).flatten().numpy()
    assert scipy.stats.kstest(wrong, cdf).pvalue < 1e-3


def test_kaiming_of_a_kernel_counts_its_window_and_either_fan():
    values = drawn((64, 32, 3, 3), name="kaiming_normal", gain="relu", fan="fan_out")
    again = torch.empty(64, 32, 3, 3)
    torch.nn.init.kaiming_normal_(
        again, mode="fan_out", nonlinearity="relu", generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(values, again)


def test_orthogonal_is_and_normal_has_its_deviation():
    weight = drawn((IN, IN), name="orthogonal", gain=2.0)
    torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(IN), atol=1e-4, rtol=0)
    assert drawn(name="normal", std=0.5).std().item() == pytest.approx(0.5, rel=0.02)


def test_a_model_starts_anew_but_for_norms_and_embeddings():
    torch.manual_seed(0)
    parts = [torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)]
    model = torch.nn.Sequential(*parts)
    torch.nn.init.ones_(model[2].bias)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = InitialisationSettings(name="orthogonal")
    initialise(model, settings, torch.Generator().manual_seed(1))
    after = model.state_dict()
    torch.testing.assert_close(after["1.weight"] @ after["1.weight"].T, torch.eye(4))
    assert after["1.bias"].tolist() == [0] * 4
    for name in ("0.weight", "2.weight", "2.bias"):
        assert torch.equal(after[name], before[name])


def test_a_key_of_another_distribution_is_refused():
    with pytest.raises(ValidationError, match="orthogonal knows no std; it knows gain"):
        InitialisationSettings(name="orthogonal", std=0.1)
    with pytest.raises(ValidationError, match="xavier_normal knows no fan"):
        InitialisationSettings(name="xavier_normal", fan="fan_in")
