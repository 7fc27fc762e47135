"""The fused passes are their definitions in numpy, bit for bit."""

import numpy as np
import pytest

from alliage.geometry.interference import kernels
from alliage.geometry.interference.counting import SignTally, choose_subsets, kept_signs
from alliage.geometry.interference.steps import Magnitudes


def values(models, numel, kind):
    random = np.random.default_rng(models)
    deltas = random.standard_normal((models, numel)).astype(np.float32)
    if kind == "coarse":
        return (2 * deltas).round() / 4
    if kind == "tiny":
        return deltas * np.float32(1e-41)
    if kind == "sparse":
        return deltas * (random.random((models, numel)) < 0.1).astype(np.float32)
    return deltas


CASES = [
    (models, numel, kind)
    for models in (2, 3, 8, 10)
    for numel, kind in ((1, "normal"), (1024, "coarse"), (2500, "normal"), (3000, "sparse"),
                        (1500, "tiny"))
]  # fmt: skip


@pytest.mark.parametrize(("models", "numel", "kind"), CASES)
def test_signs_are_tallied_as_in_numpy(models, numel, kind):
    deltas = values(models, numel, kind)
    thresholds = np.stack([np.quantile(np.abs(deltas), q, axis=1) for q in (0.9, 0.5, 0)])
    thresholds = thresholds.astype(np.float32)
    times = np.zeros((3, 3**models), np.int64)
    kernels.tally(deltas[:, : numel // 2], thresholds, times)
    kernels.tally(deltas[:, numel // 2 :], thresholds, times)
    subsets = choose_subsets(models, 3, 0)
    for found, signs in zip(times, kept_signs(deltas, thresholds), strict=True):
        fused, plain = SignTally(models, subsets), SignTally(models, subsets)
        fused.add_times(found)
        plain.add(signs)
        for one, other in zip(fused.counts(), plain.counts(), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(("models", "numel", "kind"), [*CASES, (20, 2100, "normal")])
def test_magnitudes_are_measured_as_in_numpy(models, numel, kind):
    deltas = values(models, numel, kind)
    for quantile in (0.8, 0.0):
        limits = np.quantile(np.abs(deltas), quantile, axis=1).astype(np.float32)
        (signs,) = kept_signs(deltas, limits[None])
        expected = Magnitudes.of(deltas, signs != 0)
        for one, other in zip(kernels.measure(deltas, limits), expected, strict=True):
            assert np.array_equal(one, other)
