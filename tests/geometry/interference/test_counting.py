import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alliage.geometry.interference.counting import SignTally, choose_subsets, kept_signs

ALL_OF_TWO = np.array([[True, True]])


def counted(signs, subsets, blocks=1):
    tally = SignTally(len(signs), subsets)
    for block in np.array_split(np.asarray(signs, np.int8), blocks, axis=1):
        tally.add(block)
    return tally.counts()


def test_two_models_of_three_parameters_by_hand():
    # Model a is (3, −2, 1), model b (2, 1, −4). With thresholds 2 and 2, a keeps (3, −2, ·) and b
    # (2, ·, −4): one shared parameter, of equal signs. With thresholds 1 and 1 all stay: of three
    # shared ones, the second and the third conflict.
    deltas = np.array([[3, -2, 1], [2, 1, -4]], np.float32)
    some, everything = kept_signs(deltas, np.array([[2, 2], [1, 1]], np.float32))
    assert some.tolist() == [[1, -1, 0], [1, 0, -1]]
    assert everything.tolist() == [[1, -1, 1], [1, 1, -1]]
    found = counted(some, ALL_OF_TWO)
    assert found.parameters == 3
    assert found.both.tolist() == [[2, 1], [1, 2]]
    assert found.opposed.tolist() == [[0, 0], [0, 0]]
    assert found.influential.tolist() == [0, 2, 1]
    assert [found.shared[0], found.conflicting[0], found.expected[0]] == [1, 0, 0.5]
    found = counted(everything, ALL_OF_TWO)
    assert found.both.tolist() == [[3, 3], [3, 3]]
    assert found.opposed.tolist() == [[0, 2], [2, 0]]
    assert found.influential.tolist() == [0, 0, 3]
    assert [found.shared[0], found.conflicting[0], found.expected[0]] == [3, 2, 1.5]


def test_zeros_have_no_sign_and_are_never_kept():
    deltas = np.array([[0, 1, -0.0], [1, 0, 0]], np.float32)
    (signs,) = kept_signs(deltas, np.zeros((1, 2), np.float32))
    assert signs.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert counted(signs, ALL_OF_TWO).shared[0] == 0


def test_three_models_conflict_by_subset():
    # Columns: + + −, + + ·, · − −, + − ·.
    signs = [[1, 1, 0, 1], [1, 1, -1, -1], [-1, 0, -1, 0]]
    subsets = choose_subsets(3, 10, 0)
    assert subsets.tolist() == [[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]
    found = counted(signs, subsets)
    assert found.shared.tolist() == [3, 1, 2, 4]
    assert found.conflicting.tolist() == [1, 1, 1, 2]
    # Three random signs are alike with probability ¼, two with ½: ¾ + 3 · ½.
    assert found.expected.tolist() == [1.5, 0.5, 1.0, 2.25]


def plainly(signs, subsets):
    """Parameter by parameter, with sets."""
    n = len(signs)
    both = dict.fromkeys(itertools.product(range(n), repeat=2), 0)
    opposed = dict(both)
    influential = [0] * (n + 1)
    rows = [[0, 0, 0.0] for _ in subsets]
    for column in zip(*signs, strict=True):
        influential[sum(sign != 0 for sign in column)] += 1
        for i, j in both:
            both[i, j] += bool(column[i] and column[j])
            opposed[i, j] += column[i] * column[j] == -1
        for row, subset in zip(rows, subsets, strict=True):
            found = [sign for sign, member in zip(column, subset, strict=True) if member and sign]
            if len(found) > 1:
                row[0] += 1
                row[1] += len(set(found)) == 2
                row[2] += 1 - 2 / 2 ** len(found)
    return both, opposed, influential, rows


@pytest.mark.parametrize("models", [2, 3, 5, 10, 11, 12])
def test_any_number_of_models_beside_plain_loops(models):
    random = np.random.default_rng(models)
    signs = random.integers(-1, 2, (models, 400)) * random.integers(0, 2, (models, 400))
    subsets = choose_subsets(models, 6, 0)
    both, opposed, influential, rows = plainly(signs.tolist(), subsets.tolist())
    found = counted(signs, subsets, blocks=7)
    for (i, j), count in both.items():
        assert found.both[i, j] == count
        assert found.opposed[i, j] == opposed[i, j]
    assert found.influential.tolist() == influential
    assert found.shared.tolist() == [row[0] for row in rows]
    assert found.conflicting.tolist() == [row[1] for row in rows]
    assert found.expected == pytest.approx([row[2] for row in rows], rel=1e-12)


@pytest.mark.parametrize("models", [3, 11])
def test_tallies_of_parts_add_up(models):
    random = np.random.default_rng(0)
    signs = random.integers(-1, 2, (models, 300)).astype(np.int8)
    subsets = choose_subsets(models, 4, 0)
    whole = counted(signs, subsets)
    first, second = SignTally(models, subsets), SignTally(models, subsets)
    first.add(signs[:, :100])
    second.add(signs[:, 100:])
    first.absorb(second)
    for one, other in zip(first.counts(), whole, strict=True):
        assert np.array_equal(one, other)


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_subsets_of_every_size(models, most, seed):
    subsets = choose_subsets(models, most, seed)
    sizes = subsets.sum(axis=1).tolist()
    assert sizes == sorted(sizes)
    for size in range(2, models + 1):
        rows = {tuple(row) for row in subsets[subsets.sum(axis=1) == size].tolist()}
        assert len(rows) == sizes.count(size) == min(most, math.comb(models, size))
    assert subsets[-1].all()
    assert np.array_equal(subsets, choose_subsets(models, most, seed))


def test_samples_of_subsets_differ_by_seed():
    assert not np.array_equal(choose_subsets(12, 10, 0), choose_subsets(12, 10, 1))


@pytest.mark.parametrize("models", [8, 10])
def test_more_models_conflict_more(models):
    """arXiv:2306.01708, figure 4: a set's conflicts are among those of any set that holds it."""
    random = np.random.default_rng(1)
    subsets = choose_subsets(models, 10**6, 0)
    found = counted(random.integers(-1, 2, (models, 2000)), subsets)
    shares = {
        tuple(np.flatnonzero(row)): c for row, c in zip(subsets, found.conflicting, strict=True)
    }
    for some, count in shares.items():
        for one_more in set(range(models)) - set(some):
            assert shares[tuple(sorted((*some, one_more)))] >= count
