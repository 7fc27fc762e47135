import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.merging.thresholds import TrimThresholds
from alliage.order_statistics import magnitude_thresholds, trim_rank


def oracle(values: np.ndarray, density: float) -> float:
    """By sorting."""
    rank = len(values) - int(len(values) * density)
    return float(np.sort(np.abs(values))[rank - 1]) if rank else 0.0


def search_in_blocks(
    vectors: torch.Tensor, density: float, sample: torch.Tensor | None, kept: str = "threshold"
) -> tuple:
    search = TrimThresholds(*vectors.shape, density=density, kept=kept, trim="model")
    if sample is not None:
        for piece in sample.split(50, dim=1):
            search.sample(piece)
        if (result := search.result()) is not None:
            return result, 0
    for passes in range(1, 9):
        for place, block in enumerate(vectors.split(97, dim=1)):
            search.update(block, place)
        result = search.result()
        if result is not None:
            return result, passes
    raise AssertionError("no threshold after eight passes")


def test_nothing_is_known_before_anything_was_seen():
    search = TrimThresholds(2, 10, density=0.3, kept="threshold", trim="model")
    assert [search.result(), search.result(), search.passes] == [None, None, 0]
    search.update(torch.arange(20.0).reshape(2, 10), 0)
    while (found := search.result()) is None:
        search.update(torch.arange(20.0).reshape(2, 10), 0)
    assert found["thresholds"] == [6.0, 16.0]  # of 3 + 1 entries
    everything = TrimThresholds(1, 10, density=1.0, kept="threshold", trim="model")
    assert everything.result() == {"thresholds": [0.0]}


FAMILIES = {
    "normal": lambda g: torch.randn(3, 2000, generator=g),
    "tiny": lambda g: torch.randn(3, 2000, generator=g) * 1e-30,
    "denormal": lambda g: torch.randn(3, 2000, generator=g) * 1e-40,
    "coarse": lambda g: torch.randn(3, 2000, generator=g).round(),
    "zeros": lambda g: torch.zeros(3, 2000),
    "mostly zero": lambda g: torch.randn(3, 2000, generator=g).relu() * 0.001,
    "scales apart": lambda g: torch.randn(3, 2000, generator=g) ** 9,
    "single": lambda g: torch.randn(3, 1, generator=g),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("density", [1e-4, 0.01, 0.2, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("sampled", ["none", "fair", "misleading"])
def test_exactly_the_sorted_one(family, density, sampled):
    vectors = FAMILIES[family](torch.Generator().manual_seed(0))
    if family == "single" and sampled == "misleading":
        pytest.skip("a sample of as many entries as there are is the vector itself")
    sample = {"none": None, "fair": vectors[:, ::7], "misleading": vectors[:, :5] * 1e6}[sampled]
    expected = [oracle(vector.numpy(), density) for vector in vectors]
    found, _ = search_in_blocks(vectors, density, sample)
    assert found["thresholds"] == expected
    rank = trim_rank(vectors.shape[1], density, "threshold")
    assert magnitude_thresholds(vectors, [rank] * 3).tolist() == expected


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=1, max_size=80), st.floats(0.01, 1.0))
@settings(max_examples=150, deadline=None)
def test_any_finite_numbers(values, density):
    vector = torch.tensor([values])
    expected = [oracle(vector[0].numpy(), density)]
    for sample in (vector, None):
        assert search_in_blocks(vector, density, sample)[0]["thresholds"] == expected


def test_one_pass_is_enough_after_a_fair_sample():
    vectors = torch.randn(4, 200_000, generator=torch.Generator().manual_seed(0))
    found, passes = search_in_blocks(vectors, 0.2, vectors[:, ::2])
    assert passes == 1
    assert found["thresholds"] == [oracle(vector.numpy(), 0.2) for vector in vectors]


@pytest.mark.parametrize("density", [0.001, 0.01, 0.3, 0.55, 1.0])
@pytest.mark.parametrize("family", ["normal", "coarse", "zeros", "single"])
@pytest.mark.parametrize("sampled", [True, False])
def test_counts_keep_exactly_as_many_and_of_equal_ones_the_first(family, density, sampled):
    vectors = FAMILIES[family](torch.Generator().manual_seed(1))
    size = vectors.shape[1]
    found, _ = search_in_blocks(vectors, density, vectors if sampled else None, "count")
    quotas = found.get("quota") or [[-1] * 3] * 21
    for row, vector in enumerate(vectors):
        kept = []
        for block, quota in zip(vector.split(97), quotas, strict=False):
            left = quota[row]
            for value in block.abs().tolist():
                equal = value == found["thresholds"][row]
                left -= equal
                kept.append(
                    value > found["thresholds"][row] or (equal and (left >= 0 or quota[row] < 0))
                )
        # numpy's stable sort by descending magnitude: of equal ones the first come first
        order = np.argsort(-np.abs(vector.numpy()), kind="stable")
        expected = np.zeros(size, bool)
        expected[order[: int(size * density)]] = True
        assert kept == expected.tolist()
