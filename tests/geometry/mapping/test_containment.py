"""Graphs by hand, networkx's reduction as an oracle."""

import itertools

import numpy as np
import pytest

from alliage.geometry.mapping.containment import (
    arrows,
    bends,
    contained,
    levels,
    places,
    reduced,
)

# A lies in B and B in C, so A lies in C: shares of the row's energy in the column's space.
CHAIN = np.array([[1.0, 0.9, 0.8], [0.4, 1.0, 0.7], [0.2, 0.3, 1.0]])
A_B, A_C, B_C = (0, 1), (0, 2), (1, 2)


def relation(n, *pairs):
    matrix = np.zeros((n, n), dtype=bool)
    for i, j in pairs:
        matrix[i, j] = True
    return matrix


def test_a_in_b_in_c():
    found = contained(CHAIN, 0.1, 0.1)
    assert arrows(found) == [A_B, A_C, B_C]
    assert arrows(reduced(found)) == [A_B, B_C]
    assert levels(found) == levels(reduced(found)) == [0, 1, 2]
    np.testing.assert_array_equal(places(reduced(found)), [[0.5, 0], [0.5, 1], [0.5, 2]])


def test_what_chance_gives_is_no_inclusion():
    assert arrows(contained(CHAIN, 0.75, 0.1)) == [A_B, A_C]
    floor = np.zeros((3, 3))
    floor[0] = 0.85
    assert arrows(contained(CHAIN, floor, 0.1)) == [A_B, B_C]


def test_the_margin_is_a_part_of_the_reverse():
    # 0.7 of B in C against 0.3 of C in B is 2.33 times as much, 0.9 against 0.4 is 2.25 times.
    assert arrows(contained(CHAIN, 0.0, 1.3)) == [A_C, B_C]
    assert arrows(contained(CHAIN, 0.0, 1.2)) == [A_B, A_C, B_C]


def test_alike_both_ways_is_no_inclusion():
    assert not contained(np.full((3, 3), 0.9), 0.1, 0.0).any()


def test_undefined_shares_are_no_inclusion():
    gap = CHAIN.copy()
    gap[1, 0] = np.nan
    assert arrows(contained(gap, 0.1, 0.1)) == [A_C, B_C]


def test_reduction_agrees_with_networkx():
    networkx = pytest.importorskip("networkx")
    random = np.random.default_rng(0)
    for _ in range(20):
        matrix = np.triu(random.random((8, 8)) < 0.4, 1)
        graph = networkx.from_numpy_array(matrix, create_using=networkx.DiGraph)
        expected = sorted(networkx.transitive_reduction(graph).edges)
        assert arrows(reduced(matrix)) == expected


def test_a_cycle_is_left_as_it_is_and_stands_at_one_level():
    cycle = relation(5, (0, 1), (1, 2), (2, 0), (3, 0), (3, 1), (2, 4))
    assert arrows(reduced(cycle)) == arrows(cycle)
    assert levels(cycle) == [1, 1, 1, 0, 2]


def test_containers_stand_above_and_arrows_do_not_cross():
    # 0 in 3, 1 in 2; 4 is alone and stands last in the lowest row.
    found = places(relation(5, (0, 3), (1, 2)))
    assert found[[0, 1, 4], 1].tolist() == [0, 0, 0]
    assert found[[2, 3], 1].tolist() == [1, 1]
    assert found[0, 0] < found[1, 0] < found[4, 0]
    assert found[3, 0] < found[2, 0]


def test_arrows_bow_around_models_on_their_way():
    matrix = relation(3, (0, 1), (1, 2), (0, 2))
    points = np.array([[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]])
    found = bends(matrix, points)
    assert found[A_B] == found[B_C] == 0.0
    assert found[A_C] != 0.0


def test_no_pair_lies_in_each_other():
    random = np.random.default_rng(1)
    for _ in range(10):
        found = contained(random.random((6, 6)), 0.0, 0.0)
        assert not (found & found.T).any()
        for i, j in itertools.combinations(range(6), 2):
            assert found[i, j] | found[j, i]  # random shares are never equal


def test_bad_input():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        contained(np.zeros((2, 3)), 0.0, 0.1)
    with pytest.raises(ValueError, match="-1"):
        contained(np.zeros((2, 2)), 0.0, -1)
    assert places(np.zeros((0, 0), dtype=bool)).shape == (0, 2)
