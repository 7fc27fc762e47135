import math

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist, squareform

import alliage
from alliage.errors import UsageError
from alliage.geometry import Survey


def made(distances, null=None, sd=0.01):
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
    tables = dataset(geodesic=flat, geodesic_sd=deviations) if null else dataset()
    return Survey(dataset(geodesic=distances), tables, ("a note & more.",))


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
