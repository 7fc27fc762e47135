"""Adapters of a real encoder: their factors, read by safetensors, measured by scipy."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.linalg import subspace_angles

import alliage

pytestmark = pytest.mark.real


def save_adapters(minilm, folder, seeds):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    for seed in seeds:
        model = get_peft_model(
            AutoModel.from_pretrained(minilm),
            LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"]),
        )
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder / f"seed-{seed}")
    return [folder / f"seed-{seed}" for seed in seeds]


def test_random_adapters_of_minilm_are_where_chance_puts_them(minilm, tmp_path):
    adapters = save_adapters(minilm, tmp_path, (1, 2, 3))
    found = alliage.compare(minilm, adapters, ["geodesic", "cosine"])
    assert found.data.sizes["module"] == 12
    factors = [load_file(adapter / "adapter_model.safetensors") for adapter in adapters]
    for module in found.data["module"].values:
        name = f"base_model.model.{module}.lora_B.weight"
        B = [tensors[name].double().numpy() for tensors in factors]
        expected = np.linalg.norm(subspace_angles(B[0], B[2]))
        value = found["geodesic"].sel(task="seed-1", other="seed-3", module=module)
        assert float(value) == pytest.approx(expected, rel=1e-9)
    pair = found["geodesic"].sel(task="seed-1", other="seed-2").mean()
    null = found.null["geodesic"].sel(task="seed-1", other="seed-2").mean()
    assert float(pair) == pytest.approx(float(null), abs=0.05)
    assert found["cosine"].sel(task="seed-1", other="seed-2").mean() == pytest.approx(1, abs=0.01)
    assert found.findings()[0].endswith("0 of 3 pairs closer than chance.")
