"""Arcee Fusion by hand, against scipy's divergence, and through the engine."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from alliage.merging import plan
from alliage.merging.methods.arcee_fusion import _AT_ONCE, _importance, arcee_fusion
from tests.merging.methods.through_engine import assert_streamed_is_whole, checkpoints
from tests.merging.test_odd_inputs import recipe

LN = math.log(3)
# softmaxes (1/2, 1/2) against (3/4, 1/4): divergence 3/4·ln(3/2) + 1/4·ln(1/2) = 0.130812
ROW = torch.tensor([[0.0, 0.0], [LN, 0.0]])


def test_importances_by_hand():
    found = _importance(ROW[0], ROW[1])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert found.tolist() == [[pytest.approx(LN * divergence, rel=1e-6), 0.0]]
    # a constant moves no softmax: nothing is important, and all is as important as the threshold
    assert _importance(ROW[0], ROW[0] + 2).abs().max() < 1e-12


def test_what_lies_above_the_fence_is_taken_over_by_hand():
    # five rows as above: changes LN·k in row k have importances 0, ., ., ., . in the first column
    # and 0 in the second, so that of ten Q1 = median = 0 and Q3 is the (1 + ⌊6.75⌋)-th, the second
    # smallest of the five
    a = torch.zeros(5, 2)
    b = a.clone()
    b[:, 0] = LN * torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5])
    importances = _importance(a, b)[:, 0]
    fence = 1.5 * float(importances[1])
    taken = importances >= fence
    assert taken.tolist() == [False, False, True, True, True]
    expected = torch.zeros(5, 2)
    expected[2:, 0] = b[2:, 0]
    assert torch.equal(arcee_fusion(torch.stack([a, b])), expected)


def test_equal_models_and_single_numbers():
    same = torch.randn(1, 7, 9).repeat(2, 1, 1)
    assert torch.equal(arcee_fusion(same), same[0])
    # one number's softmax is 1: no change is less important than another
    assert arcee_fusion(torch.tensor([2.0, 5.0])).tolist() == 5.0
    assert arcee_fusion(torch.zeros(2, 0, 3)).shape == (0, 3)


def test_it_is_scipys_divergence_and_numpys_sort():
    draw = np.random.default_rng(0)
    a = draw.standard_normal((_AT_ONCE // 50 + 3, 50)).astype(np.float32)  # more than one part
    b = (a + 0.3 * draw.standard_normal(a.shape)).astype(np.float32)
    p, q = (softmax(x.astype(np.float64), axis=1) + 1e-8 for x in (b, a))
    divergence = entropy(p, q, axis=1) * 1.0
    # scipy makes the probabilities' sums 1 again, which 50 times 1e-8 had left
    importance = np.abs(b.astype(np.float64) - a) * divergence[:, None]
    ordered = np.sort(importance, axis=None)
    low, middle, high = (ordered[int(share * (ordered.size - 1))] for share in (0.25, 0.5, 0.75))
    fence = middle + 1.5 * (high - low)
    found = arcee_fusion(torch.from_numpy(np.stack([a, b]))).numpy()
    clear = np.abs(importance / fence - 1) > 1e-5
    assert clear.mean() > 0.9999
    expected = np.where(importance >= fence, b, a)
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert 0.02 < (found != a).mean() < 0.3


@pytest.mark.parametrize("coarse", [False, True])
def test_streamed_it_is_the_whole(tmp_path, coarse):
    assert_streamed_is_whole(tmp_path, "arcee_fusion", base=False, coarse=coarse)


def test_it_takes_two_models(tmp_path):
    checkpoints(tmp_path, "a")
    problems = plan(recipe(tmp_path, "arcee_fusion", ["a"] * 3, base=None)).problems
    assert "arcee_fusion merges 2 models, found 3." in str(problems[0])
