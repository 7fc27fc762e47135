"""Oracles: dense products and scipy.linalg.subspace_angles, pair by pair."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from alliage.geometry.surveying.pairs import (
    LowRankUpdate,
    Sums,
    dense_sums,
    low_rank_pairs,
    space_angles,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def updates_of(ranks, d_out=40, d_in=30):
    return [
        LowRankUpdate(random(d_out, r, seed=i), random(r, d_in, seed=100 + i), 0.5 + i)
        for i, r in enumerate(ranks)
    ]


def check_against_dense(updates, *, angles_atol=1e-9):
    sums, angles = low_rank_pairs(updates)
    dense = [u.scale * u.B.double() @ u.A.double() for u in updates]
    for i, j in itertools.product(range(len(updates)), repeat=2):
        assert float(sums.inner[i, j]) == pytest.approx(float((dense[i] * dense[j]).sum()))
        distance = float((dense[i] - dense[j]).square().sum())
        # The oracle itself rounds each element of the dense products.
        floor = 1e-28 * float(dense[i].square().sum())
        assert float(sums.squared[i, j]) == pytest.approx(distance, rel=1e-6, abs=floor)
        bases = [np.linalg.svd(dense[k].numpy())[0][:, : angles.ranks[k]] for k in (i, j)]
        expected = subspace_angles(*bases)
        found = angles.values[i, j]
        np.testing.assert_allclose(found[: len(expected)], expected, atol=angles_atol)
        assert found[len(expected) :].isnan().all()


@pytest.mark.parametrize("ranks", [(4, 4, 4, 4), (2, 5, 1, 3), (8, 8)])
def test_all_pairs_agree_with_the_dense_route(ranks):
    check_against_dense(updates_of(ranks))


def test_factors_near_rank_deficiency_take_the_careful_route():
    first, second, third = updates_of((3, 3, 3))
    first.B[:, 2] = first.B[:, 1] + 1e-6 * first.B[:, 0]
    second.A[0] *= 1e-6
    check_against_dense([first, second, third])


def test_updates_with_less_rank_than_their_factors():
    first, second = updates_of((3, 3))
    first.A[2] = 2 * first.A[0]
    _, angles = low_rank_pairs([first, second])
    assert angles.ranks == (2, 3)
    check_against_dense([first, second])


def test_nearly_parallel_updates_keep_their_digits():
    first, second = updates_of((3, 3))
    change = 1e-5 * random(40, 3, seed=7)
    third = LowRankUpdate(first.B + change, first.A, first.scale)
    sums, angles = low_rank_pairs([first, second, third])
    exact = (third.B.double() - first.B.double()) @ first.A.double() * first.scale
    assert float(sums.squared[0, 2]) == pytest.approx(float(exact.square().sum()), rel=1e-9)
    expected = subspace_angles(first.B.double().numpy(), third.B.double().numpy())
    np.testing.assert_allclose(angles.values[0, 2], expected, rtol=1e-7)
    check_against_dense([first, second, third])


def test_equal_updates_are_exactly_at_zero():
    first, second = updates_of((3, 3))
    sums, angles = low_rank_pairs([first, second, first])
    assert sums.squared[0, 2] == 0
    assert sums.cosine_distance()[0, 2] == 0
    assert not angles.values[0, 2].any()


def test_a_zero_update_has_neither_cosine_nor_angles():
    first, second = updates_of((3, 3))
    sums, angles = low_rank_pairs([first, LowRankUpdate(torch.zeros(40, 3), second.A, 1.0)])
    assert angles.values[0, 1].isnan().all()
    distance = sums.cosine_distance()
    assert distance[0, 0] == 0
    assert distance[0, 1].isnan()
    assert distance[1, 1].isnan()
    assert sums.l2()[1, 1] == 0


def test_without_angles():
    sums, angles = low_rank_pairs(updates_of((3, 3)), angles=False)
    assert angles is None
    assert torch.equal(sums.inner, low_rank_pairs(updates_of((3, 3)))[0].inner)


def test_dense_sums_agree_with_numpy_and_add_up():
    deltas = random(5, 1000)
    exact = deltas.double().numpy()
    total = Sums.zeros(5)
    for block in deltas.split(300, dim=1):
        total = total.plus(dense_sums(block))
    expected = np.linalg.norm(exact[:, None] - exact[None], axis=-1)
    np.testing.assert_allclose(total.l2(), expected, rtol=1e-12)
    np.testing.assert_allclose(total.inner, exact @ exact.T, rtol=1e-10, atol=1e-10)
    unit = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(1 - total.cosine_distance(), unit @ unit.T, atol=1e-12)


def test_close_dense_updates_keep_their_distance():
    first = random(1, 1000) + 10
    second = first + 1e-5
    exact = (second.double() - first.double()).norm()
    sums = dense_sums(torch.cat([first, second]))
    assert float(sums.l2()[0, 1]) == pytest.approx(float(exact), rel=1e-12)


def test_space_angles_of_unequal_and_empty_spaces():
    bases = [torch.linalg.qr(random(20, k, seed=k).double())[0] for k in (4, 2)]
    angles = space_angles([*bases, torch.zeros(20, 0).double()])
    expected = subspace_angles(bases[0].numpy(), bases[1].numpy())
    np.testing.assert_allclose(angles.values[0, 1, :2], expected, atol=1e-12)
    assert angles.values[0, 1, 2:].isnan().all()
    assert angles.values[:, 2].isnan().all()
    assert not angles.values[0, 0].any()
    assert angles.ranks == (4, 2, 0)


def test_a_space_that_is_everything_contains_all_others():
    whole, part = torch.eye(5).double(), torch.linalg.qr(random(5, 2).double())[0]
    values = space_angles([whole, part]).values
    np.testing.assert_array_equal(values[0, 1], [0.0, 0.0, *[math.nan] * 3])


@pytest.mark.parametrize("size", [1e-4, 1e-6, 1e-8])
def test_differences_of_adapters_keep_their_digits(size):
    """[B, −(B + εE)]·[A; A] is −εEA: its terms are 1/ε times larger than itself."""
    generator = torch.Generator().manual_seed(0)
    B, E, other_B = torch.randn(3, 40, 4, generator=generator, dtype=torch.float64)
    A, other_A = torch.randn(2, 4, 30, generator=generator, dtype=torch.float64)
    difference = LowRankUpdate(torch.cat([B, -(B + size * E)], 1), torch.cat([A, A]), 1.0)
    other = LowRankUpdate(size * other_B, other_A, 1.0)
    sums, angles = low_rank_pairs([difference, other])
    dense = [difference.B @ difference.A, size * other_B @ other_A]
    digits = 1e-13 / size
    assert float(sums.inner[0, 0]) == pytest.approx(float((dense[0] ** 2).sum()), rel=digits)
    assert float(sums.l2()[0, 1]) == pytest.approx(float((dense[0] - dense[1]).norm()), rel=digits)
    expected = subspace_angles(E.numpy(), other_B.numpy())  # A has full row rank
    assert angles is not None
    assert angles.values[0, 1].numpy()[:4] == pytest.approx(expected, abs=max(digits, 1e-9))


@pytest.mark.parametrize("seed", range(5))
def test_rounding_errors_of_terms_that_cancel_are_no_directions(seed):
    generator = torch.Generator().manual_seed(seed)
    B, E = torch.randn(2, 40, 4, generator=generator, dtype=torch.float64)
    A = torch.randn(4, 30, generator=generator, dtype=torch.float64)
    first = LowRankUpdate(torch.cat([B, -(B + 0.03 * E)], 1), torch.cat([A, A]), 1.0)
    second = LowRankUpdate(E, A, 1.0)
    _, angles = low_rank_pairs([first, second])
    assert angles is not None
    assert angles.ranks == (4, 4)
    assert angles.values[0, 1].tolist() == pytest.approx([0.0] * 4, abs=1e-9)


def test_an_update_that_cancels_entirely_is_zero():
    generator = torch.Generator().manual_seed(0)
    B, A = torch.randn(40, 4, generator=generator), torch.randn(4, 30, generator=generator)
    nothing = LowRankUpdate(torch.cat([B, -B], 1), torch.cat([A, A]), 1.0)
    sums, angles = low_rank_pairs([nothing, LowRankUpdate(B, A, 1.0), nothing])
    assert angles is not None
    assert angles.ranks == (0, 4, 0)
    assert float(sums.inner[0, 0]) == 0.0
    assert float(low_rank_pairs([nothing, nothing])[0].squared[0, 1]) == 0.0
    assert sums.cosine_distance()[0, 1].isnan()


def test_an_update_of_scale_zero_is_zero():
    first, second = updates_of((3, 3))
    sums, angles = low_rank_pairs([first, second._replace(scale=0.0)])
    assert angles is not None
    assert angles.ranks[1] == 0
    assert angles.values[0, 1].isnan().all()
    assert sums.l2()[0, 1] == pytest.approx(float(sums.inner[0, 0].sqrt()), rel=1e-12)
