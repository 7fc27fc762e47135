"""A real encoder tuned on real text, turned into an adapter and back into a full model."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

import alliage
from alliage.data import load_task

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_an_adapter_of_small_rank_decides_nearly_as_the_tuned_model(minilm, data_folder, tmp_path):
    task = load_task(data_folder / "sst2")
    alliage.tune(
        model=minilm, task=data_folder / "sst2", out=tmp_path / "full", epochs=1,
        train_limit=1500, max_length=64, warmup=0.1, learning_rate=1e-4,
    )  # fmt: skip
    small = alliage.extract(tmp_path / "full", base=minilm, rank=16, out=tmp_path / "small")
    most = alliage.extract(tmp_path / "full", base=minilm, energy=0.9, out=tmp_path / "most")
    assert small.kept < most.kept
    assert all(one.kept >= 0.9 for one in most.modules)
    alliage.apply(tmp_path / "small", out=tmp_path / "again")
    accuracy = {
        name: alliage.evaluate(tmp_path / name, task)["sst2"].metrics["accuracy"]
        for name in ("full", "small", "most", "again")
    }
    assert accuracy["most"] == pytest.approx(accuracy["full"], abs=0.02)
    assert accuracy["small"] == pytest.approx(accuracy["full"], abs=0.02)
    assert accuracy["again"] == pytest.approx(accuracy["small"], abs=0.002)
    body = load_file(tmp_path / "again" / "model-00001-of-00002.safetensors")
    assert body.keys() == load_file(minilm / "model.safetensors").keys()
