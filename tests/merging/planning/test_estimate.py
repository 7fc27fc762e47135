"""How long a plan says that a merge takes: decompositions count, by the matrix they are of."""

import time

import pytest
import torch
from safetensors.torch import save_file

from alliage.merging import get_method, list_methods, parse_recipe, plan
from alliage.merging.registry import describe
from alliage.threads import one_torch_thread

SIDE = 512
DECOMPOSING = [name for name in list_methods() if describe(name).seconds is not None]


def estimated(home, method, shapes, **more):
    for name in ("base", "a", "b"):
        (home / name).mkdir(parents=True)
        tensors = {f"layers.{k}.weight": torch.zeros(shape) for k, shape in enumerate(shapes)}
        save_file(tensors, home / name / "model.safetensors")
    models = [str(home / "a"), str(home / "b")]
    content = {"method": method, "base": str(home / "base"), "models": models}
    return plan(parse_recipe(content), **more).to_dict()["estimated_seconds"]


@pytest.mark.parametrize("name", DECOMPOSING)
def test_a_matrix_takes_what_is_said_of_it_within_an_order_of_magnitude(name):
    """Of one core's time, however busy it is; machines differ by several times."""
    draw = torch.Generator().manual_seed(0)
    tensors = torch.randn(3, SIDE, SIDE, generator=draw)
    given = {"steps": 40} if "steps" in describe(name).parameters else {}

    def merge(deltas):
        grams = {"grams": deltas @ deltas.mT / SIDE} if describe(name).statistics else {}
        started = time.process_time()
        get_method(name)(deltas, **given, **grams)
        return time.process_time() - started

    with one_torch_thread():
        merge(tensors[:, :64, :64])  # libraries are loaded
        taken = merge(tensors)
    said = describe(name).seconds(3, SIDE, SIDE, **given)
    assert said / 10 < taken < said * 10


def test_what_decomposes_says_so():
    expected = {"iso_c", "iso_cts", "regmean", "regmean_plus_plus", "star", "svc", "tsv_m", "wudi"}
    assert set(DECOMPOSING) == expected


def test_decompositions_count_by_their_matrices_and_the_threads(tmp_path):
    """tsv_m decomposes 2 + 2 matrices of either shape; a vector is none."""
    shapes = [(1024, 512), (512, 2, 512), (512,)]
    one = estimated(tmp_path / "one", "tsv_m", shapes)
    none = estimated(tmp_path / "none", "task_arithmetic", shapes)
    # 4 · 5e-10 · 2 · 1024·512·512 seconds; by torch, 2 · 1.05e6 elements take 0.04 more.
    assert one - none == pytest.approx(1.074 + 0.04, abs=0.01)
    half = estimated(tmp_path / "half", "tsv_m", shapes, threads=2)
    assert one - half == pytest.approx((1.074 + 0.04) / 2, abs=0.01)
