import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.order_statistics import Search, magnitude_thresholds, trim_rank


@pytest.mark.parametrize(
    ("density", "kept", "rank"),
    [
        (0.2, "threshold", 8), (0.25, "threshold", 8), (1.0, "threshold", 0),
        (0.25, "kth", 7), (0.95, "kth", 1), (1.0, "kth", 0),
        (0.25, "count", 9), (0.05, "count", 11), (1.0, "count", 0),
        (0.25, "count_or_one", 9), (0.05, "count_or_one", 10),
    ],
)  # fmt: skip
def test_ranks_of_ten_by_each_convention(density, kept, rank):
    assert trim_rank(10, density, kept) == rank


def test_magnitudes_of_ranks():
    vectors = torch.tensor([[3.0, -1.0, 0.0, 2.0], [-4.0, 4.0, 1.0, -8.0]])
    assert magnitude_thresholds(vectors, [2, 3]).tolist() == [1.0, 4.0]
    assert magnitude_thresholds(vectors, [0, 5]).tolist() == [0.0, math.inf]


@given(
    st.lists(st.floats(0, width=32, allow_infinity=False), min_size=1, max_size=60),
    st.integers(1, 60),
    st.integers(1, 20),
)
@settings(deadline=None)
def test_sorted_blocks_give_the_sorted_one(magnitudes, rank, size):
    values = np.array(magnitudes, np.float32)
    rank = min(rank, len(values))
    search = Search(rank, len(values))
    while not search.found:
        for start in range(0, len(values), size):
            search.add_sorted(np.sort(values[start : start + size].view(np.uint32)))
        search.narrow()
    assert np.uint32(search.low).view(np.float32) == np.sort(values)[rank - 1]
