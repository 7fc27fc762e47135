"""Graphs by hand, networkx's reduction as an oracle."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch

from alliage.geometry.mapping.containment import (
    arrows,
    bends,
    contained,
    levels,
    places,
    reduced,
)
from alliage.geometry.mapping.inclusion_graph import InclusionGraph
from alliage.report.figures.inclusion import _draw

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
    points = np.array([[50.0, 0.0], [50.0, 100.0], [50.0, 200.0]])
    found = bends(matrix, points, 8.0, (0.0, 0.0, 100.0, 200.0))
    assert found[A_B] == found[B_C] == 0.0
    # The middle of the curve lies half as far off as its control point: 9 of 200 is 0.09.
    assert found[A_C] == 0.09
    assert bends(matrix, points, 8.0, (48.0, 0.0, 100.0, 200.0))[A_C] == 0.09
    assert bends(matrix, points, 8.0, (0.0, 0.0, 52.0, 200.0))[A_C] == -0.09


def apart(line, points):
    """The least distance of any of some points from a line of many segments."""
    starts, ways = line[:-1], np.diff(line, axis=0)
    squares = np.maximum((ways**2).sum(axis=1), 1e-300)
    least = np.inf
    for point in points:
        shares = np.clip(((point - starts) * ways).sum(axis=1) / squares, 0, 1)[:, None]
        least = min(least, np.linalg.norm(starts + shares * ways - point, axis=1).min())
    return least


def graph(seed):
    """A random graph without cycles, reduced; shares tell its arrows."""
    random = np.random.default_rng(seed)
    n = int(random.integers(4, 9))
    drawn = reduced(np.triu(random.random((n, n)) < 0.45, 1))
    energies = np.where(drawn, random.uniform(0.3, 0.9, (n, n)), 0.01)
    return InclusionGraph.of([f"m{i}" for i in range(n)], energies, "core_energy")


@pytest.mark.parametrize("seed", range(30))
def test_drawn_arrows_keep_clear_of_other_models(seed):
    found = graph(seed)
    figure = found.figure()
    axes = figure.axes[0]
    models = axes.transData.transform(places(found.drawn)) * 72 / figure.dpi
    drawn = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(drawn) == found.drawn.sum()
    for (i, j), patch in zip(arrows(found.drawn), drawn, strict=True):
        path = patch.get_path().transformed(axes.transData)
        (line, *_) = path.to_polygons(closed_only=False)
        others = np.delete(models, (i, j), axis=0)
        radius = np.sqrt(55) / 2 + patch.get_linewidth() / 2  # the size is the diameter's square
        assert apart(line * 72 / figure.dpi, others) > radius


@pytest.mark.parametrize("seed", range(30))
def test_arrows_of_the_report_keep_clear_of_other_models(seed):
    found = graph(seed)
    svg = str(_draw(found))
    marks = [one for one in re.findall(r"<circle [^>]*>", svg) if "data-model" in one]
    models = np.array(
        [[float(re.search(rf'{at}="([\d.]+)"', one)[1]) for at in ("cx", "cy")] for one in marks]
    )
    drawn = re.findall(
        r'<path class="arrow" d="M([-\d. ]+)Q([-\d. ]+)" stroke-width="([\d.]+)"', svg
    )
    assert len(drawn) == found.drawn.sum()
    shares = np.linspace(0, 1, 200)[:, None]
    for (i, j), (start, rest, width) in zip(arrows(found.drawn), drawn, strict=True):
        a = np.array(start.split(), dtype=float)
        b, c = np.array(rest.split(), dtype=float).reshape(2, 2)
        line = (1 - shares) ** 2 * a + 2 * shares * (1 - shares) * b + shares**2 * c
        others = np.delete(models, (i, j), axis=0)
        assert apart(line, others) > 4.5 + float(width) / 2


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
