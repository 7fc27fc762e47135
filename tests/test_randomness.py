import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alliage.randomness import uniform


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 10**6))
def test_draws_are_the_same_for_any_block(start, length, offset):
    whole = uniform(7, "layers.0.weight", 1, offset, offset + 1000)
    part = uniform(7, "layers.0.weight", 1, offset + start, offset + start + length)
    assert np.array_equal(part, whole[start : start + length])


def test_draws_are_uniform():
    draws = uniform(0, "layers.0.weight", 0, 0, 1_000_000)
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.chisquare(np.histogram(draws, 256, (0, 1))[0]).pvalue > 1e-3
    low_bits = np.bincount((draws * np.float32(2**24)).astype(np.uint32) & 255, minlength=256)
    assert stats.chisquare(low_bits).pvalue > 1e-3
    pairs, _, _ = np.histogram2d(draws[:-1:2], draws[1::2], 16, [[0, 1], [0, 1]])
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


@pytest.mark.parametrize(
    "other", [(8, "a.weight", 0), (7, "b.weight", 0), (7, "a.weight", 1), (71, ".weight", 0)]
)
def test_draws_differ_by_seed_tensor_and_model(other):
    one = uniform(7, "a.weight", 0, 0, 10_000)
    found = uniform(*other, 0, 10_000)
    assert (one == found).mean() < 0.01
    assert abs(np.corrcoef(one, found)[0, 1]) < 0.05


def test_draws_do_not_depend_on_the_thread():
    expected = [uniform(0, "w", k, 0, 5000) for k in range(8)]
    found = {}
    workers = [
        threading.Thread(target=lambda k=k: found.update({k: uniform(0, "w", k, 0, 5000)}))
        for k in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(found[k], expected[k]) for k in range(8))
