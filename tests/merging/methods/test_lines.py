"""LiNeS (arXiv:2410.17146) is task arithmetic with a gradient: it needs no method of its own.

Its scale of layer ℓ of L is α + β(ℓ − 1)/(L − 1): `scale: [α, α + β]`. Its code scales what lies
outside the layers by α; here that holds for what comes before them, and what comes after them, a
final norm, has α + β. Rules by name, or the dialect mergekit, set it to α.
"""

from itertools import product

import pytest
import torch

from alliage.merging import get_method
from tests.merging.methods.through_engine import merged_everyhow
from tests.merging.test_odd_inputs import store

ALPHA, BETA, LAYERS = 0.2, 0.6, 4
NAMES = ["embeddings.weight", *(f"layers.{i}.weight" for i in range(LAYERS)), "norm.weight"]


@pytest.fixture
def deltas(tmp_path):
    """Checkpoints whose base is zero, and their task vectors by name."""
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(2, 5, 3, generator=generator) for name in NAMES}
    store(tmp_path / "base", {name: torch.zeros(5, 3) for name in NAMES})
    for number, model in enumerate("ab"):
        store(tmp_path / model, {name: tensor[number].clone() for name, tensor in drawn.items()})
    return drawn


@pytest.mark.parametrize(
    ("method", "outside"),
    [
        *product(["task_arithmetic", "ties", "tsv_m"], ["depth", "rules"]),
        ("task_arithmetic", "mergekit"),  # of TIES it changes other defaults too
        ("tsv_m", "mergekit"),
    ],
)
def test_a_gradient_of_the_scale_is_lines(tmp_path, deltas, method, outside):
    gradient = [ALPHA, ALPHA + BETA]
    settings = {"parameters": {"scale": gradient}}
    if outside == "rules":
        rules = [{"filter": "layers", "value": gradient}, {"value": ALPHA}]
        settings = {"parameters": {"scale": rules}}
    elif outside == "mergekit":
        settings["dialect"] = "mergekit"
    if method == "ties":
        settings["parameters"] |= {"trim": "tensor"}
    found = merged_everyhow(tmp_path, method, "ab", **settings)
    at_the_end = ALPHA + BETA if outside == "depth" else ALPHA
    scales = [ALPHA, *(ALPHA + BETA * layer / (LAYERS - 1) for layer in range(LAYERS)), at_the_end]
    for name, scale in zip(NAMES, scales, strict=True):
        expected = get_method(method)(deltas[name], scale=scale)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
