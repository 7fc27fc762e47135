import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.merging.thresholds import WholeVectorThresholds, magnitude_thresholds


def oracle(values: np.ndarray, density: float) -> float:
    """By sorting."""
    rank = len(values) - int(len(values) * density)
    return float(np.sort(np.abs(values))[rank - 1]) if rank else 0.0


def stream(vectors: torch.Tensor, density: float, sample: torch.Tensor | None) -> tuple:
    search = WholeVectorThresholds(*vectors.shape, density=density)
    if sample is not None:
        search.sample(sample)
    for passes in range(1, 9):
        for block in vectors.split(97, dim=1):
            search.update(block)
        result = search.result()
        if result is not None:
            return result["thresholds"], passes
    raise AssertionError("no threshold after eight passes")


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
    sample = {"none": None, "fair": vectors[:, ::7], "misleading": vectors[:, :5] * 1e6}[sampled]
    expected = [oracle(vector.numpy(), density) for vector in vectors]
    found, _ = stream(vectors, density, sample)
    assert found.tolist() == expected
    assert magnitude_thresholds(vectors, density).tolist() == expected


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=1, max_size=80), st.floats(0.01, 1.0))
@settings(max_examples=150, deadline=None)
def test_any_finite_numbers(values, density):
    vector = torch.tensor([values])
    assert stream(vector, density, vector)[0].tolist() == [oracle(vector[0].numpy(), density)]


def test_one_pass_is_enough_after_a_fair_sample():
    vectors = torch.randn(4, 200_000, generator=torch.Generator().manual_seed(0))
    found, passes = stream(vectors, 0.2, vectors[:, ::10])
    assert passes == 1
    assert found.tolist() == [oracle(vector.numpy(), 0.2) for vector in vectors]
