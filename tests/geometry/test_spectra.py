import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from alliage.geometry import (
    effective_rank,
    spectral_entropy,
    spectrum_distance,
    spectrum_overlap,
    stable_rank,
)


def test_reference_spectrum():
    S = torch.tensor([4.0, 2.0, 1.0, 1.0])
    assert spectral_entropy(S) == pytest.approx(0.875, abs=1e-12)
    assert effective_rank(S) == pytest.approx(3.3635856610, abs=1e-9)
    assert spectrum_overlap(S, torch.ones(4)) == pytest.approx(0.75, abs=1e-12)


def test_entropy_agrees_with_scipy():
    S = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert spectral_entropy(S) == pytest.approx(entropy(S.numpy()) / np.log(7), rel=1e-12)
    assert effective_rank(S) == pytest.approx(np.exp(entropy(S.numpy())), rel=1e-12)


def test_zeros_add_nothing_to_the_effective_rank():
    assert effective_rank(torch.tensor([3.0, 3.0, 0.0])) == pytest.approx(2.0, abs=1e-12)
    assert spectral_entropy(torch.tensor([5.0, 0.0])) == 0.0


def test_overlap_takes_magnitudes_and_continues_the_shorter_by_zeros():
    assert spectrum_overlap(torch.tensor([1.0, 1.0]), torch.tensor([-3.0, 3.0])) == 1.0
    assert spectrum_overlap(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([1.0])) == 0.25


def test_stable_rank_by_hand():
    # (16 + 4 + 1 + 1) / 16; order and signs do not matter.
    assert stable_rank(torch.tensor([1.0, -4.0, 2.0, 1.0])) == 1.375
    assert stable_rank(torch.full((5,), 0.3)) == pytest.approx(5.0, rel=1e-12)
    assert math.isnan(stable_rank(torch.zeros(2)))


def test_distance_by_hand():
    # Differences 3 − (−1), 2 − 2 and 1 − 4 with signs: 4, 0, 3.
    first, second = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([-1.0, 2.0, 4.0])
    assert spectrum_distance(first, second) == 7.0
    assert spectrum_distance(first, second, 2) == 5.0
    assert spectrum_distance(first, second, math.inf) == 4.0
    assert spectrum_distance(second, first) == 7.0
    assert spectrum_distance(first, torch.tensor([3.0])) == 3.0
    assert spectrum_distance(torch.zeros(2), torch.zeros(3)) == 0.0
    with pytest.raises(ValueError, match="p of 1 or more"):
        spectrum_distance(first, second, 0.5)


def test_undefined_is_nan():
    zeros = torch.zeros(3)
    assert math.isnan(spectral_entropy(zeros))
    assert math.isnan(spectral_entropy(torch.ones(1)))
    assert math.isnan(effective_rank(zeros))
    assert math.isnan(spectrum_overlap(zeros, torch.ones(3)))
    with pytest.raises(ValueError, match="spectrum"):
        effective_rank(torch.ones(2, 2))


def test_rounding_errors_share_nothing():
    own = torch.tensor([3.0, 1.0])
    assert spectrum_overlap(own, torch.tensor([3e-17, -1e-17]), noise=1e-15) == 0.0
    assert spectrum_overlap(own, torch.zeros(2)) == 0.0
    # Of (3e-17, 1) only the second is left: min(1/4, 1).
    assert spectrum_overlap(own, torch.tensor([3e-17, 1.0]), noise=1e-15) == 0.25
