"""What chance gives, against updates whose directions are drawn outright."""

import math

import numpy as np
import pytest
import torch

from alliage.geometry.alignment import Decomposition
from alliage.geometry.surveying.decomposed import Decomposed
from alliage.geometry.surveying.metrics import METRICS
from alliage.geometry.surveying.pairs import Counts, dense_sums

SPECTRA = {"alike": (4.0, 4.0, 4.0), "falling": (9.0, 3.0, 1.0), "unequal": (5.0, 2.0)}


def drawn(S, m, n, generator):
    U, V = (
        torch.linalg.qr(torch.randn(size, len(S), generator=generator, dtype=torch.float64))[0]
        for size in (m, n)
    )
    return Decomposition(U, torch.tensor(S, dtype=torch.float64), V)


@pytest.mark.parametrize("first", SPECTRA)
@pytest.mark.parametrize("second", SPECTRA)
def test_means_and_deviations_of_directed_metrics(first, second):
    m, n, generator = 40, 30, torch.Generator().manual_seed(0)
    values, expected = {}, {}
    for _ in range(1500):
        pair = Decomposed(
            (drawn(SPECTRA[first], m, n, generator), drawn(SPECTRA[second], m, n, generator)),
            (m, n),
        )
        cores = pair.cores(torch.stack([part.S.norm() for part in pair.parts]))
        for name in ("explained_energy", "core_energy", "rec", "sti"):
            found = pair if name == "sti" else cores
            values.setdefault(name, []).append(float(METRICS[name].measure(found)[0, 1]))
            if name not in expected:
                expected[name] = METRICS[name].chance(found)[:, 0, 1].tolist()
    for name, draws in values.items():
        mean, variance = expected[name]
        error = np.std(draws) / math.sqrt(len(draws))
        # The overlap's own mean is drawn, and of Gaussian directions.
        assert abs(np.mean(draws) - mean) < 4 * error + (0.01 if name == "rec" else 0), name
        if name != "sti":
            assert math.sqrt(variance) == pytest.approx(np.std(draws), rel=0.2), name
        else:
            assert math.isnan(variance)


def test_cosines_of_random_matrices():
    """Exact for any spectrum: one direction in 12 × 10 elements."""
    generator = torch.Generator().manual_seed(0)
    cosines, variance = [], math.nan
    for _ in range(3000):
        deltas = []
        for S in ((1.0,), (3.0, 2.0, 1.0)):
            U, s, V = drawn(S, 12, 10, generator)
            deltas.append((U * s @ V.T).flatten())
        sums = dense_sums(torch.stack(deltas)).of_whole(120)
        cosines.append(1 - float(METRICS["cosine"].measure(sums)[0, 1]))
        mean, variance = METRICS["cosine"].chance(sums)[:, 0, 1].tolist()
        assert mean == 1.0
    assert variance == pytest.approx(1 / 120, rel=1e-9)
    assert np.var(cosines) == pytest.approx(variance, rel=0.1)
    assert abs(np.mean(cosines)) < 4 * math.sqrt(variance / len(cosines))


def test_l2_of_random_matrices():
    """Of 30 × 20 elements; norms 5 and 1."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(2000):
        deltas = []
        for S in ((4.0, 3.0), (1.0,)):
            U, s, V = drawn(S, 30, 20, generator)
            deltas.append((U * s @ V.T).flatten())
        sums = dense_sums(torch.stack(deltas)).of_whole(600)
        values.append(float(METRICS["l2"].measure(sums)[0, 1]))
    mean, variance = METRICS["l2"].chance(sums)[:, 0, 1].tolist()
    assert mean == pytest.approx(math.sqrt(25 + 1), rel=1e-12)
    assert np.mean(np.square(values)) == pytest.approx(26, abs=4 * np.std(np.square(values)) / 44)
    assert np.std(values) == pytest.approx(math.sqrt(variance), rel=0.1)


def test_signs_and_places_of_random_elements():
    generator = torch.Generator().manual_seed(0)
    found = {"sign_agreement": [], "top_overlap": []}
    for _ in range(800):
        deltas = torch.randn(2, 400, generator=generator)
        thresholds = deltas.abs().kthvalue(321, dim=1).values  # the largest 80
        counts = Counts.of(deltas, thresholds).of_whole(400)
        for name, values in found.items():
            values.append(float(METRICS[name].measure(counts)[0, 1]))
    for name, values in found.items():
        mean, variance = METRICS[name].chance(counts)[:, 0, 1].tolist()
        assert np.mean(values) == pytest.approx(mean, abs=4 * np.std(values) / 28)
        # Poisson's variance is larger than that of drawing without replacement, by 1/(1 − 0.2)².
        ratio = 1.0 if name == "sign_agreement" else 1 / 0.8
        assert math.sqrt(variance) == pytest.approx(ratio * np.std(values), rel=0.1)
