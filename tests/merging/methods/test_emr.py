"""EMR's unified vector and masks, against numbers worked out by hand and numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.merging import describe
from alliage.merging.methods.emr import agreeing, emr
from tests.merging.methods.through_engine import assert_streamed_is_whole

DELTAS = torch.tensor(
    [
        [1.0, -4.0, 2.0, 0.0, 3.0],
        [3.0, 1.0, -2.5, 0.0, -3.0],
        [-2.0, 1.0, 1.0, 0.0, 0.0],
    ]
)
# sums             2   -2   0.5  0    0
# signs            +    -    +   -    -    (zero sums: negative)
# largest of them  3    4    2   0    3
UNIFIED = torch.tensor([3.0, -4.0, 2.0, 0.0, -3.0])
MASKS = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]).bool()


def test_worked_out_by_hand():
    assert torch.equal(emr(DELTAS), UNIFIED)
    assert torch.equal(agreeing(DELTAS, UNIFIED), MASKS)
    assert torch.equal(emr(DELTAS.reshape(3, 5, 1)), UNIFIED[:, None])
    assert torch.equal(emr(-DELTAS), torch.tensor([-3.0, 4.0, -2.0, 0.0, -3.0]))


def test_tiny_entries_agree_too():
    """Their product is 0 in float32."""
    deltas = torch.tensor([[1e-30, -1e-30], [1e-30, 1e-31]])
    assert agreeing(deltas, emr(deltas)).tolist() == [[True, True], [True, False]]


def test_its_scales_are_ratios_of_whole_models():
    masks = describe("emr").masks
    assert masks is not None
    assert masks.rescale
    assert masks.select is agreeing


@given(st.integers(1, 6), st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_the_papers_words(models, seed, coarse):
    deltas = torch.randn(models, 60, generator=torch.Generator().manual_seed(seed))
    deltas = (deltas * 2).round() if coarse else deltas
    expected = np.zeros(60, np.float32)
    for place, values in enumerate(deltas.numpy().T):
        total = np.float32(0)
        for value in values:
            total = np.float32(total + value)
        sign = 1 if total > 0 else -1
        expected[place] = sign * max([0, *(abs(v) for v in values if np.sign(v) == sign)])
    assert np.array_equal(emr(deltas).numpy(), expected)
    masks = agreeing(deltas, emr(deltas)).numpy()
    assert np.array_equal(masks, (np.sign(deltas.numpy()) == np.sign(expected)) & (expected != 0))


@pytest.mark.parametrize("coarse", [False, True])
def test_the_engine_computes_it_in_any_blocks(tmp_path, coarse):
    assert_streamed_is_whole(tmp_path, "emr", coarse=coarse)
