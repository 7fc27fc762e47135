"""The oracle is NumPy's singular value decomposition in float64 (Eckart and Young 1936)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alliage.geometry.truncation import (
    fewest_directions,
    squared_norm,
    truncate_to_energy,
    truncate_to_rank,
)

SPECTRA = {
    "noise": None,
    "slow": lambda i: (i + 1) ** -0.5,
    "falling": lambda i: 1 / (i + 1),
    "steep": lambda i: 2.0 ** (-i / 2),
}


def matrix(spectrum, rows=160, columns=240):
    draw = np.random.default_rng(3)
    if SPECTRA[spectrum] is None:
        return torch.from_numpy(draw.normal(size=(rows, columns))).float()
    size = min(rows, columns)
    U = np.linalg.qr(draw.normal(size=(rows, size)))[0]
    V = np.linalg.qr(draw.normal(size=(columns, size)))[0]
    return torch.from_numpy(U * SPECTRA[spectrum](np.arange(size)) @ V.T).float()


def product(found):
    return found.U * found.S @ found.V.mT


def energies(given):
    """The largest energy that 1, 2, ... directions can keep, as shares of all of it."""
    squares = np.linalg.svd(given.double().numpy(), compute_uv=False) ** 2
    return squares.cumsum() / squares.sum()


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [80, 160, 500])
def test_large_ranks_are_exact(spectrum, rank, turned):
    given = matrix(spectrum).mT if turned else matrix(spectrum)
    found = truncate_to_rank(given, rank)
    S = np.linalg.svd(given.double().numpy(), compute_uv=False)
    kept = S[: len(found.S)]
    assert len(found.S) == min(rank, int(np.sum(S / S[0] > 1.2e-7)))
    # Values near eps·S₁ are what is left when larger ones are taken away.
    np.testing.assert_allclose(found.S, kept, rtol=1e-9, atol=2e-8 * S[0])
    left = np.linalg.norm(given.double() - product(found))
    assert left == pytest.approx(np.linalg.norm(S[rank:]), rel=1e-9, abs=1e-6 * S[0])


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
@pytest.mark.parametrize(
    ("spectrum", "share"), [("noise", 0.95), ("slow", 0.999), ("falling", 1), ("steep", 1)]
)
def test_small_ranks_keep_nearly_the_best_energy(spectrum, share, turned):
    given = matrix(spectrum, 400, 600)
    given = given.mT if turned else given
    found = truncate_to_rank(given, 8)
    best = energies(given)[7]
    kept = 1 - (np.linalg.norm(given.double() - product(found)) / np.linalg.norm(given)) ** 2
    assert share * best - 1e-6 <= kept <= best + 1e-6
    assert float(found.S.square().sum()) / squared_norm(given) == pytest.approx(kept, abs=1e-6)
    drawn = found.U if not turned else found.V
    torch.testing.assert_close(drawn.mT @ drawn, torch.eye(8, dtype=torch.float64))


def test_a_matrix_of_low_rank_is_found_whole():
    draw = torch.Generator().manual_seed(0)
    B, A = torch.randn(300, 3, generator=draw), torch.randn(3, 500, generator=draw)
    for rank in (3, 20, 250):  # drawn, drawn with directions to spare, exact
        found = truncate_to_rank(B @ A, rank)
        torch.testing.assert_close(product(found).float(), B @ A, rtol=1e-5, atol=1e-5)
        assert found.S[:3].square().sum() == pytest.approx(squared_norm(B @ A), rel=1e-6)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("energy", [0.05, 0.5, 0.9, 0.999])
def test_the_fewest_directions_of_an_energy(spectrum, energy):
    given = matrix(spectrum)
    fewest = int((energies(given) < energy).sum()) + 1
    found = truncate_to_energy(given, energy)
    assert float(found.S.square().sum()) >= energy * squared_norm(given) * (1 - 1e-12)
    assert fewest <= len(found.S) <= fewest + 1
    assert len(truncate_to_energy(given.mT, energy).S) == len(found.S)


def test_all_of_the_energy_is_all_of_the_matrix():
    given = matrix("slow")
    torch.testing.assert_close(product(truncate_to_energy(given, 1)).float(), given)


def test_fewest_directions_by_hand():
    S = torch.tensor([3.0, 2.0, 1.0]).double()  # squares 9, 4, 1 of 14
    assert [fewest_directions(S, share) for share in (0.1, 9 / 14, 0.65, 13 / 14, 0.95, 1)] == [
        1, 1, 2, 2, 3, 3,
    ]  # fmt: skip


def test_nothing_has_no_directions():
    for found in (truncate_to_rank(torch.zeros(4, 6), 2), truncate_to_energy(torch.zeros(4, 6), 1)):
        assert found.U.shape == (4, 0)
        assert found.V.shape == (6, 0)


def test_the_seed_decides_every_bit():
    given = matrix("noise", 200, 300)
    one, other = (truncate_to_rank(given, 4, seed=7) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one.U, truncate_to_rank(given, 4, seed=8).U)
