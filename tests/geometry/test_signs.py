import math

import numpy as np
import pytest
import torch

from alliage.geometry import sign_agreement, top_overlap
from alliage.geometry.signs import sign_counts, sign_share, top_threshold


def random(seed):
    return torch.randn(40, 25, generator=torch.Generator().manual_seed(seed))


def test_agreement_by_hand():
    # Both change places 0, 1, 2 and 4; signs are equal at 0 and 4.
    first = torch.tensor([1.0, -2.0, 3.0, 0.0, -5.0, 1.0])
    second = torch.tensor([2.0, 2.0, -1.0, 4.0, -1.0, 0.0])
    assert sign_agreement(first, second) == 0.5
    assert sign_agreement(first, first) == 1.0
    assert sign_agreement(first, -first) == 0.0


def test_tiny_values_have_signs():
    """A product of the values would vanish in float32."""
    tiny = torch.full((4,), 1e-30)
    assert sign_agreement(tiny, -tiny) == 0.0


def test_counts_of_blocks_add_up():
    first, second = random(0), random(1)
    blocks = [sign_counts(*pair) for pair in zip(first.split(7), second.split(7), strict=True)]
    total = tuple(map(sum, zip(*blocks, strict=True)))
    assert sign_share(*total) == sign_agreement(first, second)
    a, b = np.sign(first.numpy()), np.sign(second.numpy())
    assert sign_agreement(first, second) == (a == b).sum() / a.size


def test_overlap_by_hand():
    # The largest 2 of 5: {0, 1} and {1, 4}; one of three in common.
    first = torch.tensor([-9.0, 8.0, 1.0, 0.0, 2.0])
    second = torch.tensor([1.0, -7.0, 0.5, 3.0, 6.0])
    assert top_overlap(first, second, 0.4) == pytest.approx(1 / 3, abs=1e-15)
    # All: {0, 1, 2, 4}, without the zero, and everything.
    assert top_overlap(first, second, 1.0) == pytest.approx(4 / 5, abs=1e-15)


def test_overlap_agrees_with_sets():
    first, second = random(0), random(1)
    tops = [
        set(np.argsort(-np.abs(update.numpy()).ravel())[:100].tolist())
        for update in (first, second)
    ]
    assert top_overlap(first, second, 0.1) == len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def test_random_places_overlap_as_said():
    values = [top_overlap(random(2 * i), random(2 * i + 1), 0.2) for i in range(200)]
    assert np.mean(values) == pytest.approx(0.2 / 1.8, abs=0.004)


def test_equal_magnitudes_belong_together():
    """What ties with the smallest of the largest is not left to the order of a sort."""
    level = torch.ones(10)
    assert top_threshold(level, 0.2) == 1.0
    assert top_overlap(level, torch.arange(1.0, 11.0), 0.2) == 0.2


def test_nothing_in_common_and_zeros():
    zeros, ones = torch.zeros(3), torch.ones(3)
    assert math.isnan(sign_agreement(zeros, ones))
    assert math.isnan(top_overlap(zeros, ones))
    assert top_overlap(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == 0.0
    with pytest.raises(ValueError, match=r"\[3\] and \[2\]"):
        sign_agreement(ones, torch.ones(2))
    with pytest.raises(ValueError, match=r"\[3\] and \[2\]"):
        top_overlap(ones, torch.ones(2))
    with pytest.raises(ValueError, match=r"\(0, 1\], got 20"):
        top_overlap(ones, ones, 20)
