"""Both sides of the benchmark get the same merge, and a wrong result is not timed in silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from benchmarks._models import BASE, TUNED, make_family
from benchmarks.merging import MERGES, compare
from safetensors.torch import load_file, save_file

from alliage.merging import load_recipe, plan
from benchmarks import _report, merging

NAME = "model.layers.0.mlp.down_proj.weight"
PARAMETERS = 2 * 256 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 176 + 2 * 64) + 64


@pytest.fixture
def outputs(family, tmp_path):
    """Two copies of the base, as if both sides had written it."""
    for side in ("ours", "peer"):
        shutil.copytree(family / BASE, tmp_path / side)
    return tmp_path / "ours", tmp_path / "peer"


def change(folder: Path, steps: int) -> None:
    """Move one weight by steps of bfloat16."""
    tensors = load_file(folder / "model.safetensors")
    tensors[NAME].view(torch.int16).view(-1)[7] += steps
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("name", MERGES)
def test_our_recipe_can_be_planned_and_reads_what_the_peer_reads(family, tmp_path, name):
    _, _, recipe, *_ = merging.ours_command(MERGES[name], family, tmp_path / "ours")
    merging.peer_command(MERGES[name], family, tmp_path / "peer")
    made = plan(load_recipe(recipe), out=tmp_path / "ours")
    made.raise_problems()
    theirs = (tmp_path / "peer.yml").read_text()
    folders = [str(family / model) for model in (BASE, *TUNED)]
    assert [folder in theirs for folder in folders] == [MERGES[name].has_base] + [True] * 4
    assert (made.recipe.base is not None) == MERGES[name].has_base


def test_equal_outputs_do_not_differ(family, outputs):
    found = compare(MERGES["linear"], family, *outputs)
    assert (found.share, found.worst) == (0.0, 0.0)


def test_one_step_of_rounding_is_allowed_and_counted(family, outputs):
    change(outputs[1], 1)
    found = compare(MERGES["linear"], family, *outputs)
    assert found.share == 1 / PARAMETERS
    assert 0.5 < found.worst <= 1


def test_more_than_roundings_is_an_error(family, outputs):
    change(outputs[1], 3)
    with pytest.raises(RuntimeError, match=r"differ by .* times what rounding"):
        compare(MERGES["linear"], family, *outputs)


def test_nan_is_an_error(family, outputs):
    tensors = load_file(outputs[0] / "model.safetensors")
    tensors[NAME][3, 5] = float("nan")
    save_file(tensors, outputs[0] / "model.safetensors")
    with pytest.raises(RuntimeError, match="differ by nan times"):
        compare(MERGES["linear"], family, *outputs)


@pytest.mark.parametrize("name", MERGES)
def test_a_missing_tensor_is_an_error(family, outputs, name):
    tensors = load_file(outputs[1] / "model.safetensors")
    del tensors[NAME]
    save_file(tensors, outputs[1] / "model.safetensors")
    with pytest.raises(RuntimeError, match="other tensors"):
        compare(MERGES[name], family, *outputs)


@pytest.mark.slow
@pytest.mark.real
def test_the_whole_benchmark_on_small_models(tmp_path, monkeypatch):
    """It fails by itself if linear or task arithmetic differ by more than roundings."""
    if not (merging.PEERS / "mergekit-yaml").exists():
        pytest.skip("no mergekit: run `make peers`")
    out = tmp_path / "out"
    out.mkdir()
    for module in (_report, merging):
        monkeypatch.setattr(module, "OUT", out)
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    for name in ("SIZE", "SMALLEST"):
        monkeypatch.setattr(merging, name, "0.1M")
    for name in ("RUNS", "PEER_RUNS"):
        monkeypatch.setattr(merging, name, 1)
    monkeypatch.setattr(merging, "make_family", lambda size: make_family(size, tmp_path))
    merging.main()
    content = json.loads((out / "merging.json").read_text())
    assert [row["merge"] for row in content["rows"]] == list(MERGES)
    share, worst = content["runs"]["task_arithmetic"]["difference"]
    assert 0 < share < 0.1
    assert 0 < worst <= 1
    assert [path.name for path in out.iterdir()] == ["merging.json"]
