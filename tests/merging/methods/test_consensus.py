"""Consensus and TALL masks against numbers worked out by hand and the paper's words in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe, plan, run
from alliage.merging.methods.consensus import consensus, consensus_ties, selected, tall_masks
from tests.merging.methods.test_ties import reference
from tests.merging.methods.through_engine import assert_streamed_is_whole
from tests.merging.test_odd_inputs import recipe, store

DELTAS = torch.tensor(
    [
        [4.0, 1.0, 2.0, 0.0, -3.0],
        [2.0, -1.0, 8.0, 0.0, 3.5],
        [2.0, 1.0, -1.0, 5.0, -1.0],
    ]
)
# sums                8    1    9    5   -0.5
# |sum - delta|       4    0    7    5    2.5
#                     6    2    1    5    4
#                     6    0   10    0    0.5
# times 0.4           1.6  0    2.8  2    1
#                     2.4  0.8  0.4  2    1.6
#                     2.4  0    4    0    0.2
MASKS = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 1], [0, 1, 0, 1, 1]]).bool()
# selected by         1    3    1    1    3


def test_worked_out_by_hand():
    total = torch.tensor([8.0, 1.0, 9.0, 5.0, -0.5])
    assert torch.equal(selected(DELTAS, total, 0.4), MASKS)
    assert consensus(DELTAS, scale=1.0).tolist() == [0.0, 1.0, 0.0, 0.0, -0.5]
    assert consensus(DELTAS, scale=2.0, agree=3).tolist() == [0.0, 2.0, 0.0, 0.0, -1.0]
    assert torch.equal(consensus(DELTAS, scale=1.0, agree=1), total)
    assert torch.equal(tall_masks(DELTAS), total)


def test_catastrophic_entries_are_what_no_mask_selects():
    # 3 against |(3 + 3) - 3| at λ = 1: equal, selected; at λ = 1.1 by none.
    deltas = torch.tensor([[3.0], [3.0]])
    assert consensus(deltas, strictness=1.0, scale=1.0, agree=1).tolist() == [6.0]
    assert consensus(deltas, strictness=1.1, scale=1.0, agree=1).tolist() == [0.0]
    assert consensus(deltas, strictness=1.1, scale=1.0, agree=0).tolist() == [6.0]


def test_each_model_has_its_own_strictness():
    deltas = torch.tensor([[3.0], [3.0]])
    merged = torch.tensor([6.0])
    assert selected(deltas, merged, torch.tensor([1.1, 0.9])).tolist() == [[False], [True]]
    own = consensus(deltas, strictness=torch.tensor([1.1, 0.9]), agree=1, scale=1.0)
    assert torch.equal(own, merged)


def test_more_than_all_models_means_all():
    assert torch.equal(consensus(DELTAS, agree=9), consensus(DELTAS, agree=3))
    assert torch.equal(consensus(DELTAS[:1], agree=2, scale=1.0), DELTAS[0])


def in_numpy(deltas, strictness, agree, scale):
    """Element by element, in the paper's words."""
    merged = np.zeros(deltas.shape[1], np.float32)
    for place, values in enumerate(deltas.T):
        total = np.float32(0)
        for value in values:
            total = np.float32(total + value)
        votes = 0
        for value, limit in zip(values, strictness, strict=True):
            votes += abs(value) >= np.float32(abs(np.float32(total - value)) * np.float32(limit))
        merged[place] = total * np.float32(scale) if votes >= agree else 0
    return merged


@given(st.integers(2, 5), st.integers(0, 10**6), st.integers(0, 2), st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_the_papers_words(models, seed, agree, coarse):
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn(models, 50, generator=generator)
    deltas = (deltas * 2).round() if coarse else deltas
    strictness = torch.rand(models, generator=generator)
    found = consensus(deltas, strictness=strictness, agree=agree, scale=0.3)
    expected = in_numpy(deltas.numpy(), strictness.numpy(), agree, 0.3)
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        ("consensus", "strictness", -0.1),
        ("consensus", "agree", 1.5),
        ("consensus", "agree", -1),
        ("consensus", "density", 0.2),
        ("tall_masks", "scale", 2.0),
    ],
)
def test_bad_input_is_named(method, key, value):
    content = {"method": method, "models": ["a"], "parameters": {key: value}}
    with pytest.raises(UsageError, match=key):
        parse_recipe(content).settings()


def test_of_ties_worked_out_by_hand():
    deltas = torch.tensor([[4.0, 2.0, -3.0, 0.0], [-2.0, 8.0, 1.0, 3.0], [1.0, -1.0, 3.0, 5.0]])
    # What is at least the 2nd smallest, 2, 2 and 1, stays: [4, 2, -3, .], [-2, 8, ., 3] and all.
    # Sums 3, 9, 0 and 8 elect +, +, the majority's +, and +; what agrees adds up to 5, 10, 3 and 8.
    # |merged - delta|  1  8  6  8   by λ = 0.5  0.5  4    3  4     selected  1  0  1  0
    #                   7  2  2  5               3.5  1    1  2.5             0  1  1  1
    #                   4 11  0  3               2    5.5  0  1.5             0  0  1  1
    given = {"density": 0.5, "strictness": 0.5, "scale": 1.0}
    assert consensus_ties(deltas, **given).tolist() == [0.0, 0.0, 3.0, 8.0]
    assert consensus_ties(deltas, **given, agree=1).tolist() == [5.0, 10.0, 3.0, 8.0]
    assert consensus_ties(deltas, **given, agree=3).tolist() == [0.0, 0.0, 3.0, 0.0]


def test_without_masks_consensus_of_ties_is_ties():
    deltas = torch.randn(4, 500, generator=torch.Generator().manual_seed(1))
    merged = consensus_ties(deltas, density=0.3, agree=0, scale=1.0)
    agreeing = (deltas.sign() == merged.sign()) & (
        deltas.abs() >= deltas.abs().kthvalue(350, dim=1, keepdim=True).values
    )
    means = merged / agreeing.sum(dim=0).clamp(min=1)
    torch.testing.assert_close(means, reference(deltas, 0.3), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "parameters", "coarse"),
    [
        ("consensus", {"agree": 2}, True),
        ("consensus", {"strictness": 0.1, "agree": 1}, False),
        ("consensus_ties", {"trim": "tensor"}, False),
        ("consensus_ties", {"trim": "tensor", "kept": "count", "density": 0.5}, False),
        ("tall_masks", {}, False),
    ],
)
def test_the_engine_computes_it_in_any_blocks(tmp_path, method, parameters, coarse):
    assert_streamed_is_whole(tmp_path, method, parameters, coarse=coarse)


def test_thresholds_and_the_majority_of_ties_are_the_whole_models(tmp_path):
    """Coarse, so that votes cancel, and most signs are negative: some blocks are merged again."""
    generator = torch.Generator().manual_seed(2)
    sizes = {"layers.0.weight": 9000, "layers.1.weight": 700}
    deltas = {
        name: torch.cat(
            [torch.randint(-3, 3, (size,), generator=generator).float() for size in sizes.values()]
        )
        for name in "ab"
    }
    store(tmp_path / "base", {name: torch.zeros(size) for name, size in sizes.items()})
    for name, delta in deltas.items():
        parts = delta.split(list(sizes.values()))
        store(tmp_path / name, dict(zip(sizes, parts, strict=True)))
    chosen = recipe(tmp_path, "consensus_ties", parameters={"density": 0.4, "agree": 1})
    expected = consensus_ties(torch.stack([*deltas.values()]), density=0.4, agree=1)
    redone = []
    for threads in (1, 2):
        least = plan(chosen, threads=threads).memory_for(threads)
        out = tmp_path / f"out{threads}"
        redone.append(run(plan(chosen, threads=threads, memory=least), out).blocks_redone)
        parts = load_file(out / "model.safetensors")
        assert torch.equal(torch.cat([parts[name] for name in sizes]), expected)
    assert min(redone) > 0


def test_all_are_registered():
    assert get_method("consensus_ties") is consensus_ties
    assert get_method("consensus") is consensus
    assert get_method("tall_masks") is tall_masks
