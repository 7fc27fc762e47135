"""PCB-Merging by hand, against the authors' formula in dense numpy, and streamed."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alliage.errors import UsageError
from alliage.merging import parse_recipe, plan, run
from alliage.merging.methods.pcb import Balance, pcb
from tests.merging.methods.through_engine import assert_streamed_is_whole, checkpoints
from tests.merging.test_odd_inputs import recipe

DELTAS = torch.tensor([[1.0, 2.0, -3.0], [2.0, -1.0, 0.5]])


def test_scores_and_their_average_by_hand():
    # stretched magnitudes: 0, 1/2, 1 and 1, 1/3, 0; sums 3, 1, -2.5. Scores of the first: tanh 3,
    # e^(2/4)·tanh 2, e²·tanh 7.5, of the second e²·tanh 6, none (its sign opposes the sum) twice
    # all stay that are above zero; shares by the largest score of each model
    share = math.tanh(3) / (math.exp(2) * math.tanh(7.5))
    expected = [(share * 1 + 1 * 2) / (share + 1), 2.0, -3.0]
    found = pcb(DELTAS, density=1.0)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=0)
    # from the second of three scores on they stay, and the smallest of these counts nothing: of the
    # first model the last entry remains, of the second the first
    assert pcb(DELTAS, density=0.6, scale=0.5).tolist() == [1.0, 0.0, -1.5]


def test_where_nothing_agrees_nothing_is_merged():
    assert not pcb(torch.tensor([[1.0, -2.0], [-1.0, 2.0]]), density=1.0).any()


def test_the_largest_and_smallest_magnitudes_are_clipped():
    row = torch.arange(1.0, 20_001.0)[None]
    merged = pcb(row, density=1.0)
    # two of 20000 at either end
    assert merged[:4].tolist() == [3.0, 3.0, 3.0, 4.0]
    assert merged[-4:].tolist() == [19_997.0, 19_998.0, 19_998.0, 19_998.0]


def reference(deltas, density):
    """The authors' code's formula in float64, where its quantiles are those of whole entries."""
    models, numel = deltas.shape
    clipped = int(numel * 1e-4)
    ordered = np.sort(np.abs(deltas), axis=1)
    low, high = ordered[:, [clipped]], ordered[:, [numel - 1 - clipped]]
    magnitudes = np.clip(np.abs(deltas), low, high)
    within = np.exp(models * ((magnitudes - low) / (high - low)) ** 2)
    scores = within * np.tanh(deltas * deltas.sum(axis=0))
    cut = np.sort(scores, axis=1)[:, [int(numel * (1 - density))]]
    assert (cut > 0).all()
    shares = np.maximum(scores, cut) - cut
    shares /= shares.max(axis=1, keepdims=True)
    merged = (shares * np.sign(deltas) * magnitudes).sum(axis=0)
    return merged / np.maximum(shares.sum(axis=0), 1e-12)


@pytest.mark.parametrize("numel", [50, 3000, 30_000])
@pytest.mark.parametrize("density", [0.05, 0.1, 0.4])
def test_it_is_the_authors_formula(density, numel):
    deltas = np.random.default_rng(0).standard_normal((3, numel)).astype(np.float32)
    found = pcb(torch.from_numpy(deltas), density=density)
    expected = reference(deltas.astype(np.float64), density)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert (found == 0).float().mean() > 0.1


def test_the_first_pass_looks_at_blocks_in_any_order():
    deltas = torch.randn(3, 9001, generator=torch.Generator().manual_seed(0))
    blocks = list(enumerate(torch.split(deltas, 4096, dim=1)))
    found = []
    for order in (1, -1):
        reduction = Balance(3, 9001, density=0.1, over="model")
        passes, result = 0, reduction.result()
        while result is None:
            passes += 1
            for place, block in blocks[::order]:
                reduction.update(block, place)
            result = reduction.result()
        found.append(result)
    assert found[0] == found[1]
    assert 2 <= passes <= 5
    magnitudes = deltas.abs().sort(dim=1).values
    assert found[0]["bounds"] == [*magnitudes[:, 0].tolist(), *magnitudes[:, -1].tolist()]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("density", [0.1, 1.0])
def test_streamed_it_is_the_whole(tmp_path, density, coarse):
    parameters = {"density": density, "over": "tensor", "scale": 0.7}
    assert_streamed_is_whole(tmp_path, "pcb", parameters, coarse=coarse)


def test_by_default_the_model_is_balanced_as_one_vector(tmp_path):
    models = checkpoints(tmp_path, "ab")
    run(plan(recipe(tmp_path, "pcb"), threads=2), tmp_path / "out")
    base, a, b = (torch.cat([t.flatten() for t in tensors.values()]) for tensors in models)
    expected = base + pcb(torch.stack([a - base, b - base]))
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(torch.cat([found[name].flatten() for name in models[0]]), expected)


@pytest.mark.parametrize("wrong", [{"density": 0}, {"density": 1.5}, {"over": "row"}])
def test_what_is_out_of_range_is_refused(wrong):
    content = {"method": "pcb", "base": "b", "models": ["a"], "parameters": wrong}
    with pytest.raises(UsageError, match=next(iter(wrong))):
        parse_recipe(content).settings()
