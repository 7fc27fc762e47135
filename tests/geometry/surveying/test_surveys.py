import math

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist, squareform

import alliage
from alliage.errors import UsageError
from alliage.geometry import Survey


def made(distances, null=None, sd=0.01, metric="geodesic"):
    """A survey of models a, b, ... with one module."""
    names = list("abcdefgh"[: len(distances)])
    coordinates = {
        "task": names, "other": names, "module": ["layer.0.query"],
        "layer": ("module", [0]), "kind": ("module", ["query"]),
    }  # fmt: skip

    def dataset(**values):
        shaped = {
            key: (("task", "other", "module"), [[[cell] for cell in row] for row in rows])
            for key, rows in values.items()
        }
        return xr.Dataset(shaped, coordinates)

    flat = [[null or 0.0] * len(names)] * len(names)
    deviations = [[sd] * len(names)] * len(names)
    chance = {metric: flat} | ({f"{metric}_sd": deviations} if sd else {})
    tables = dataset(**chance) if null else dataset()
    return Survey(dataset(**{metric: distances}), tables, ("a note & more.",))


THREE = [[0.0, 1.0, 2.0], [1.0, 0.0, 1.5], [2.0, 1.5, 0.0]]


def test_findings_name_the_nearest_and_the_farthest():
    assert made(THREE).findings() == ["geodesic: nearest a – b 1, farthest a – c 2."]
    assert made(THREE, null=1.8).findings() == [
        "geodesic: nearest a – b 1, farthest a – c 2; random subspaces 1.8: "
        "2 of 3 pairs closer than chance."
    ]


def test_findings_on_two_models():
    pair = [[0.0, 1.0], [1.0, 0.0]]
    closer = "geodesic: a – b 1; random subspaces 1.1: it is closer than chance."
    assert made(pair, null=1.1).findings() == [closer]
    # Two standard deviations below the mean may be chance.
    not_closer = "geodesic: a – b 1; random subspaces 1.1: not closer than chance."
    assert made(pair, null=1.1, sd=0.05).findings() == [not_closer]


def test_findings_of_shares_say_who_lies_in_whom():
    """Both ways: 0.5 of a in b, 0.2 of b in a; chance is 0.3 ± 0.01."""
    pair = [[1.0, 0.5], [0.2, 1.0]]
    assert made(pair, null=0.3, metric="core_energy").findings() == [
        "core_energy: lowest b in a 0.2, highest a in b 0.5; random directions 0.3: "
        "1 of 2 pairs above chance."
    ]
    # Without a deviation nothing is said of what is beyond chance.
    assert made(pair, null=0.3, sd=None, metric="sar").findings() == [
        "sar: lowest b merged with a 0.2, highest a merged with b 0.5; chance 0.3."
    ]


def test_intervals_of_means_over_modules():
    three = made(THREE)
    assert three.interval("geodesic").low.isnull().all()  # of one module
    modules = xr.concat([three.data + shift for shift in (0.0, 1.0)], "module")
    found = Survey(modules, three.null, ()).interval("geodesic")
    assert found.low.dims == ("task", "other")
    # Two modules, drawn twice: the mean is the smaller, the middle or the larger.
    np.testing.assert_array_equal(found.low, THREE)
    np.testing.assert_array_equal(found.high, np.array(THREE) + 1)
    with pytest.raises(KeyError, match="not measured here"):
        three.interval("l2")


def test_pairs_without_a_distance_are_no_finding():
    gap = [[0.0, 1.0, math.nan], [1.0, 0.0, 1.5], [math.nan, 1.5, 0.0]]
    assert made(gap).findings() == ["geodesic: nearest a – b 1, farthest b – c 1.5."]
    with pytest.raises(UsageError, match="among a, c"):
        made(gap).map("geodesic")


def test_maps():
    found = made(THREE).map("geodesic", "mds")
    assert found.names == ("a", "b", "c")
    np.testing.assert_allclose(squareform(pdist(found.coordinates)), THREE, atol=1e-12)
    assert made(THREE).map("geodesic").method == "pca"
    with pytest.raises(UsageError, match="'pca'"):
        made(THREE).map("geodesic", "tsne")


def test_unknown_metrics_get_the_nearest_name():
    with pytest.raises(KeyError, match="Did you mean 'geodesic'"):
        made(THREE)["geodesc"]


def test_shows_itself_in_a_notebook():
    html = made(THREE, null=1.8)._repr_html_()
    assert html.count("<table") == 1
    assert "<th>a</th>" in html
    assert "a note &amp; more." in html
    assert "2 of 3 pairs" in html


def test_the_verb_is_public():
    assert alliage.compare is alliage.geometry.compare
    assert callable(alliage.geometry.survey)
