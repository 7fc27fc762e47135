"""Energies against closed forms and scipy's distances, gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from alliage.errors import UsageError
from alliage.tuning.science import hyperspherical
from alliage.tuning.science.hyperspherical import (
    HypersphericalSettings,
    chosen_weights,
    energy,
    penalty,
)


@pytest.mark.parametrize(("power", "expected"), [(0, -2.07944), (1, 4.24264), (2, 3.0)])
def test_three_orthonormal_rows(power, expected):
    assert energy(torch.eye(3, dtype=torch.float64), power).item() == pytest.approx(
        expected, abs=5e-6
    )


@pytest.mark.parametrize("power", [0, 1, 2])
def test_equals_scipys_distances_whatever_the_lengths(power):
    rows = np.random.default_rng(0).standard_normal((7, 2, 3))
    flat = rows.reshape(7, 6)
    distances = pdist(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    expected = 2 * (-np.log(distances) if power == 0 else distances**-power).sum()
    assert energy(torch.from_numpy(rows), power).item() == pytest.approx(expected)
    scaled = torch.from_numpy(rows) * torch.arange(1.0, 8.0)[:, None, None]
    assert energy(scaled, power).item() == pytest.approx(expected)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_its_gradient_is_right_and_finite_for_rows_that_coincide(power):
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: energy(x, power), rows)
    same = torch.ones(2, 3, requires_grad=True)
    energy(same, power).backward()
    assert same.grad.isfinite().all()


@pytest.mark.parametrize("power", [0, 1, 2])
@pytest.mark.parametrize("width", [64, 768, 3072])
def test_rows_that_coincide_are_no_noise_in_float32(power, width):
    """Two rows each three times, and some of their own: the same as with twice the digits."""
    generator = torch.Generator().manual_seed(width)
    base = torch.randn(40, width, generator=generator)
    rows = torch.cat([base, base[:2], 3 * base[:2]]).requires_grad_()
    exact = rows.detach().double().requires_grad_()
    single, double = energy(rows, power), energy(exact, power)
    assert single.item() == pytest.approx(double.item(), rel=1e-6)
    single.backward()
    double.backward()
    scale = exact.grad.abs().max().item()
    torch.testing.assert_close(rows.grad.double(), exact.grad, rtol=0, atol=1e-4 * scale)


def test_the_penalty_is_the_mean_of_a_pair():
    assert penalty(2 * torch.eye(3, dtype=torch.float64), 2).item() == pytest.approx(3 / 6)


def model():
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    return ViTModel(
        ViTConfig(
            image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=32,
        )
    )  # fmt: skip


def test_kinds_and_names_choose_modules():
    vit = model()
    found = {id(weight) for weight in chosen_weights(vit, ("mlp", "q_proj"))}
    expected = {
        id(layer.get_submodule(name).weight)
        for layer in vit.layers
        for name in ("mlp.fc1", "mlp.fc2", "attention.q_proj")
    }
    assert found == expected
    with pytest.raises(UsageError, match=r"modules: mpl: matches no trained weight. .*'mlp'"):
        chosen_weights(vit, ("mpl",))
    with pytest.raises(UsageError) as caught:
        chosen_weights(vit, ("zzz",))
    assert "'query'" in str(caught.value)
    assert "other" not in str(caught.value)


def test_the_callback_adds_the_coefficients_share_and_descent_spreads_neurons():
    vit = model()
    settings = HypersphericalSettings(coefficient=0.5, power=0, modules=("fc1",))
    callback = hyperspherical.callback(settings, vit)
    callback.on_step_begin(None, None, None)
    weights = [layer.mlp.fc1.weight for layer in vit.layers]
    for weight in weights:
        (expected,) = torch.autograd.grad(0.5 * penalty(weight, 0), weight)
        torch.testing.assert_close(weight.grad, expected)
    assert vit.layers[0].mlp.fc2.weight.grad is None
    before = [penalty(weight, 0).item() for weight in weights]
    torch.optim.SGD(weights, lr=0.1).step()
    assert all(penalty(weight, 0).item() < old for weight, old in zip(weights, before, strict=True))
