import pytest
import torch
from safetensors.torch import load_file

from alliage.errors import UsageError
from alliage.merging import passthrough, plan, run
from tests.merging.test_odd_inputs import recipe, store, three


def test_worked_out_by_hand():
    weights = torch.tensor([[1.0, -2.0, 0.5]])
    assert passthrough(weights).tolist() == [1.0, -2.0, 0.5]
    assert passthrough(weights, scale=-2.0).tolist() == [-2.0, 4.0, -1.0]
    assert passthrough(weights, scale=torch.tensor([0.5])).tolist() == [0.5, -1.0, 0.25]


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        (torch.float64, torch.int64), (torch.float32, torch.int32),
        (torch.float16, torch.int16), (torch.bfloat16, torch.int16),
    ],
)  # fmt: skip
def test_a_model_passes_bit_by_bit(tmp_path, dtype, bits):
    """What float32 holds, that is: zeros of both signs, denormal numbers and the largest too."""
    smallest = torch.tensor([1, 2, 0x7F], dtype=bits).view(dtype).float().to(dtype)
    special = torch.cat([smallest, torch.tensor([0.0, -0.0, 65504.0]).to(dtype)])
    tensor = torch.cat([special, -special, three((7000,))[0].to(dtype)])
    store(tmp_path / "a", {"layers.0.weight": tensor, "layers.0.ids": torch.arange(5)})
    run(plan(recipe(tmp_path, "passthrough", ["a"], base=None)), tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(out["layers.0.weight"].view(bits), tensor.view(bits))
    assert torch.equal(out["layers.0.ids"], torch.arange(5))


def test_one_model_and_no_more(tmp_path):
    for name, tensor in zip("ab", three(), strict=False):
        store(tmp_path / name, {"layers.0.weight": tensor})
    with pytest.raises(UsageError, match="passthrough merges 1 model, found 2"):
        plan(recipe(tmp_path, "passthrough", base=None)).raise_problems()
