"""Both sides of the benchmark measure the same adapters, and the base is never read."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.geometry import ADAPTERS, _adapters, _in_memory, _loop, _survey
from safetensors.numpy import load_file
from scipy.linalg import subspace_angles

import alliage


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _adapters(tmp_path_factory.mktemp("geometry") / "2-12-3", 2, 12, 3)


def test_the_base_is_a_hole_of_the_right_size(folder):
    base = alliage.open(folder / "base")
    shapes = {name: spec.shape for name, spec in base.specs().items()}
    assert shapes == {f"model.layers.0.self_attn.{kind}_proj.weight": (12, 12) for kind in "qv"}
    assert not base.read("model.layers.0.self_attn.v_proj.weight").any()


def test_our_side_finds_what_the_loop_finds(folder):
    names = [folder / f"adapter-{i}" for i in range(ADAPTERS)]
    found = alliage.compare(folder / "base", names, ["geodesic"], modules="v")["geodesic"]
    B = [
        load_file(name / "adapter_model.safetensors")[
            "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"
        ].astype(np.float64)
        for name in names
    ]
    expected = np.linalg.norm(subspace_angles(B[2], B[7]))
    assert float(found.isel(task=2, other=7, module=0)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dense", [False, True])
def test_every_side_tells_its_seconds(folder, dense):
    for told in (_survey(folder), _in_memory(folder), _loop(folder, 1, 3, dense=dense)):
        assert told.keys() == {"seconds", "processor"}
        assert told["seconds"] > 0
