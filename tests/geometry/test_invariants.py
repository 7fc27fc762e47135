"""What the measures must not depend on, and what makes a distance of them."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alliage.geometry import (
    core_energy,
    effective_rank,
    explained_energy,
    low_rank_distances,
    low_rank_svd,
    principal_angles,
    sign_agreement,
    singular_task_interference,
    spectral_entropy,
    spectral_projection,
    spectrum_overlap,
    stable_rank,
    subspace_alignment,
    sum_of,
    top_overlap,
    ye_lim,
)
from alliage.geometry.alignment import Decomposition
from alliage.geometry.distances import ANGLE_DISTANCES

SEEDS = st.integers(0, 10**6)
FEW = settings(max_examples=40, deadline=None)


def draw(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def turn(seed, size):
    """An orthogonal matrix."""
    return torch.linalg.qr(draw(seed, (size, size))[0])[0]


# -- principal angles, and distances of them


@given(SEEDS, st.integers(1, 4), st.integers(1, 4))
@FEW
def test_angles_know_spaces_and_not_their_bases(seed, r1, r2):
    first, second, left, right = draw(seed, (9, r1), (9, r2), (r1, r1), (r2, r2))
    assume(all(float(torch.linalg.cond(change)) < 1e3 for change in (left, right)))
    angles = principal_angles(first, second)
    assert torch.allclose(principal_angles(second, first), angles, atol=1e-12)
    assert torch.allclose(principal_angles(first @ left, second @ right), angles, atol=1e-9)
    rotation = turn(seed, 9)
    assert torch.allclose(principal_angles(rotation @ first, rotation @ second), angles, atol=1e-12)
    assert float(angles.min()) >= 0
    assert float(angles.max()) <= math.pi / 2 + 1e-15


# Spaces of one dimension k. Martin's is no metric: see below.
METRICS = sorted(set(ANGLE_DISTANCES) - {"martin"})


@pytest.mark.parametrize("name", METRICS)
@given(SEEDS, st.integers(1, 3), st.floats(0.01, 2))
@FEW
def test_distances_are_metrics(name, seed, k, spread):
    """Near spaces too, where the triangle is tight."""
    centre, *moves = draw(seed, (7, k), (7, k), (7, k), (7, k))
    spaces = [torch.linalg.qr(centre + spread * move)[0] for move in moves]
    distance = ANGLE_DISTANCES[name]
    found = {
        (i, j): distance(principal_angles(spaces[i], spaces[j]))
        for i, j in itertools.product(range(3), repeat=2)
    }
    for i, j, k_ in itertools.permutations(range(3)):
        assert found[i, j] == pytest.approx(found[j, i], abs=1e-12)
        assert found[i, j] > 0
        assert found[i, j] <= found[i, k_] + found[k_, j] + 1e-12
    assert all(found[i, i] < 1e-6 for i in range(3))


def test_martin_is_no_metric():
    """Lines at 0, 45 and 80 degrees: √(−2 ln cos θ) of 80 is more than of 45 and of 35."""
    martin = ANGLE_DISTANCES["martin"]
    long, first, second = (
        martin(torch.tensor([math.radians(degrees)])) for degrees in (80, 45, 35)
    )
    assert long == pytest.approx(math.sqrt(-2 * math.log(math.cos(math.radians(80)))))
    assert long > first + second


@given(SEEDS, st.lists(st.integers(1, 4), min_size=3, max_size=3))
@FEW
def test_ye_and_lim_measure_spaces_of_all_dimensions(seed, sizes):
    spaces = draw(seed, *((6, size) for size in sizes))

    def distance(i, j):
        return ye_lim(principal_angles(spaces[i], spaces[j]), sizes[i], sizes[j])

    for i, j, k in itertools.permutations(range(3)):
        assert distance(i, j) == pytest.approx(distance(j, i), abs=1e-12)
        assert distance(i, j) <= distance(i, k) + distance(k, j) + 1e-12
    assert distance(0, 0) < 1e-6
    inner = spaces[0][:, :1]
    surplus = sizes[0] - 1  # a space lies in another: π/2 for each direction more
    expected = math.sqrt(surplus) * math.pi / 2
    found = ye_lim(principal_angles(inner, spaces[0]), 1, sizes[0])
    assert found == pytest.approx(expected, abs=1e-6)


# -- low-rank updates


@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.floats(0.1, 10))
@FEW
def test_distances_of_updates_know_products_and_not_their_factors(seed, r1, r2, size):
    B1, A1, B2, A2, change = draw(seed, (9, r1), (r1, 7), (9, r2), (r2, 7), (r1, r1))
    assume(float(torch.linalg.cond(change)) < 1e3)
    found = low_rank_distances(B1, A1, B2, A2)
    gauge = low_rank_distances(B1 @ change, torch.linalg.solve(change, A1), B2, A2)
    left, right = turn(seed, 9), turn(seed + 1, 7)
    turned = low_rank_distances(left @ B1, A1 @ right, left @ B2, A2 @ right)
    swapped = low_rank_distances(B2, A2, B1, A1)
    for other in (gauge, turned, swapped):
        assert list(other) == pytest.approx(list(found), rel=1e-8, abs=1e-9)
    larger = low_rank_distances(B1, A1, B2, A2, scale1=size, scale2=size)
    assert larger[0] == pytest.approx(size * found[0])
    assert larger[2] == pytest.approx(found[2], abs=1e-12)
    frobenius, spectral, cosine = found
    assert spectral <= frobenius * (1 + 1e-12)
    assert frobenius <= math.sqrt(r1 + r2) * spectral * (1 + 1e-12)
    assert abs(cosine) <= 1 + 1e-12


@given(SEEDS, st.integers(1, 4), st.integers(1, 4))
@FEW
def test_energies_are_shares_that_know_no_rotation(seed, r1, r2):
    B1, A1, B2, A2 = draw(seed, (9, r1), (r1, 7), (9, r2), (r2, 7))
    norm = float(torch.linalg.norm(B2 @ A2))

    def energies(left, right):
        U, _, V = low_rank_svd(left @ B1, A1 @ right)
        one = explained_energy(spectral_projection(U, V, left @ B2, A2 @ right), norm)
        return one, core_energy(U, V, left @ B2, A2 @ right)

    explained, core = energies(torch.eye(9).double(), torch.eye(7).double())
    assert 0 <= explained <= core * (1 + 1e-12) <= 1 + 1e-9
    assert energies(turn(seed, 9), turn(seed + 1, 7)) == pytest.approx((explained, core), abs=1e-9)


@given(SEEDS, st.lists(st.integers(1, 3), min_size=2, max_size=4))
@FEW
def test_alignment_and_interference_know_no_order_and_no_rotation(seed, ranks):
    factors = [draw(seed + number, (8, r), (r, 6)) for number, r in enumerate(ranks)]

    def measured(left, right, order):
        updates = [
            Decomposition(*low_rank_svd(left @ factors[i][0], factors[i][1] @ right)) for i in order
        ]
        merged = sum_of(updates)
        shares = [subspace_alignment(update, merged) for update in updates]
        return [shares[order.index(i)] for i in range(len(ranks))], singular_task_interference(
            updates
        )

    order = list(range(len(ranks)))
    still = (torch.eye(8).double(), torch.eye(6).double())
    plain, collision = measured(*still, order)
    assert all(0 <= share <= 1 for share in plain)
    assert collision >= 0
    turned = (turn(seed, 8), turn(seed, 6))
    for rotations, ordered in ((turned, order), (still, order[::-1])):
        shares, again = measured(*rotations, ordered)
        assert shares == pytest.approx(plain, abs=1e-8)
        assert again == pytest.approx(collision, rel=1e-8)


# -- spectra


@given(SEEDS, st.integers(1, 8), st.floats(0.01, 100))
@FEW
def test_spectra_are_shapes(seed, count, size):
    first, second = (values.abs().sort(descending=True)[0] for values in draw(seed, count, count))
    overlap = spectrum_overlap(first, second)
    assert overlap == pytest.approx(spectrum_overlap(second, first))
    assert overlap == pytest.approx(spectrum_overlap(size * first, second))
    assert 0 <= overlap <= 1 + 1e-12
    assert spectrum_overlap(first, first) == pytest.approx(1)
    assert 1 - 1e-12 <= effective_rank(first) <= count * (1 + 1e-12)
    assert 1 - 1e-12 <= stable_rank(first) <= count * (1 + 1e-12)
    for measure in (effective_rank, stable_rank, spectral_entropy):
        if count > 1 or measure is not spectral_entropy:
            assert measure(size * first) == pytest.approx(measure(first))
    assert effective_rank(torch.ones(count)) == pytest.approx(count)
    assert stable_rank(torch.ones(count)) == pytest.approx(count)


# -- signs


@given(SEEDS, st.floats(0.01, 100), st.sampled_from([0.05, 0.2, 1.0]))
@FEW
def test_signs_know_neither_size_nor_place(seed, size, share):
    first, second = draw(seed, 60, 60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    for measure in (sign_agreement, lambda a, b: top_overlap(a, b, share)):
        found = measure(first, second)
        assert 0 <= found <= 1
        assert measure(second, first) == found
        assert measure(size * first, second) == found
        assert measure(first[order], second[order]) == found
        assert measure(first, first) == 1
    assert sign_agreement(first, -second) == pytest.approx(1 - sign_agreement(first, second))
    assert top_overlap(first, -second, share) == top_overlap(first, second, share)
