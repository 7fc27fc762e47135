"""Signals through stacks whose variances are known, and compositions in closed form."""

from __future__ import annotations

import pytest
import torch

from alliage.tuning.science import compositions, signal_by_depth
from alliage.tuning.science.initialisation import InitialisationSettings, initialise

WIDTH, DEPTH = 256, 12


def signals(activation, **settings):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.nn.Linear(WIDTH, WIDTH, dtype=torch.float64) for _ in range(DEPTH)]
    parts = [part for layer in layers for part in (layer, activation)]
    model = torch.nn.Sequential(*parts)
    initialise(model, InitialisationSettings(**settings), generator)
    x = torch.randn(400, WIDTH, generator=generator, dtype=torch.float64)
    named = {f"layer {index}": layer for index, layer in enumerate(layers)}
    return signal_by_depth(model, {"input": x}, named, generator), x


def test_orthogonal_layers_keep_signals_and_gradients_and_a_gain_multiplies_them():
    found, x = signals(torch.nn.Identity(), name="orthogonal", gain=1.1)
    start = x.square().mean().item()
    for index, signal in enumerate(found):
        assert signal.module == f"layer {index}"
        assert signal.forward == pytest.approx(start * 1.21 ** (index + 1))
        ratio = signal.backward / found[-1].backward
        assert ratio == pytest.approx(1.21 ** (DEPTH - 1 - index))


def test_relu_keeps_its_signal_with_its_own_gain_and_loses_half_a_layer_without():
    kept, _ = signals(torch.nn.ReLU(), name="kaiming_normal", gain="relu")
    assert 0.5 < kept[-1].forward / kept[0].forward < 2
    assert 0.5 < kept[0].backward / kept[-1].backward < 2
    lost, _ = signals(torch.nn.ReLU(), name="kaiming_normal", gain="linear")
    halved = 2.0 ** (DEPTH - 1)
    assert 0.5 < halved * lost[-1].forward / lost[0].forward < 2


def test_compositions_are_the_closed_forms():
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    steps = torch.arange(6.0, dtype=torch.float64)[:, None]
    values, slopes = compositions(torch.nn.functional.softplus, x, 5)
    torch.testing.assert_close(values, (x.exp() + steps).log())
    torch.testing.assert_close(slopes, x.exp() / (x.exp() + steps))
    values, slopes = compositions(lambda t: (t * t + 0.5).sqrt(), x[x > 0], 5)
    torch.testing.assert_close(values, (x[x > 0] ** 2 + 0.5 * steps).sqrt())
    values, slopes = compositions(torch.relu, x, 5)
    torch.testing.assert_close(values[1:], x.clamp_min(0).expand(5, -1))
    torch.testing.assert_close(slopes[5], (x > 0).double())
