"""What is drawn: as many marks as numbers, labels apart, and words that say what it is."""

import itertools
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist, squareform

from alliage.errors import UsageError
from alliage.geometry import Survey
from alliage.geometry.mapping.inclusion_graph import InclusionGraph
from alliage.geometry.mapping.layer_profile import LayerProfile
from alliage.geometry.mapping.spectrum_curves import SpectrumCurves
from alliage.geometry.mapping.task_map import MAPS, TaskMap
from alliage.geometry.mapping.trees import Dendrogram, HeatMap

NAMES = ("sst2", "trec & co", "a model with a long name", "snips", "<b>")
LAYERS = 3


def modules(values, names=NAMES):
    """[n, n, 2·LAYERS] with queries and values of three layers."""
    return xr.DataArray(
        values,
        dims=("task", "other", "module"),
        coords={
            "task": list(names), "other": list(names),
            "module": [f"layer.{i}.{kind}" for i in range(LAYERS) for kind in ("query", "value")],
            "layer": ("module", [0, 0, 1, 1, 2, 2]),
            "kind": ("module", ["query", "value"] * LAYERS),
        },
        name="geodesic",
    )  # fmt: skip


RANDOM = np.random.default_rng(0)
DISTANCES = np.stack(
    [squareform(pdist(RANDOM.normal(size=(5, 4)))) for _ in range(2 * LAYERS)], axis=-1
)
ENERGIES = RANDOM.uniform(0.1, 0.9, (5, 5, 2 * LAYERS))


def survey():
    data = xr.Dataset({"geodesic": modules(DISTANCES), "core_energy": modules(ENERGIES)})
    one = xr.ones_like(modules(DISTANCES))
    null = {"geodesic": 2 * one, "geodesic_sd": 0.3 * one, "core_energy": 0.2 * one,
            "core_energy_sd": 0.6 * one}  # fmt: skip
    return Survey(data, xr.Dataset(null), ())


def boxes(figure):
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    return [text.get_window_extent(renderer) for text in texts]


def apart(found):
    return not any(one.overlaps(other) for one, other in itertools.combinations(found, 2))


@pytest.mark.parametrize("method", MAPS)
def test_maps_say_what_they_are_and_how_well_they_keep_distances(method):
    found = survey().map("geodesic", method)
    figure = found.figure()
    assert MAPS[method].title in figure.axes[0].get_title(loc="left")
    assert f"rank correlation {found.agreement:.2f}" in figure.get_supxlabel()
    assert f"stress-1 {found.stress:.3f}" in repr(found)
    assert ("variance" in figure.axes[0].get_xlabel()) == (method != "nonmetric")
    assert len(figure.axes[0].collections) == len(NAMES)
    assert apart(boxes(figure))


def test_a_map_of_groups_says_that_they_fell_into_points():
    same = np.arange(10) % 2
    groups = squareform(np.random.default_rng(0).random(45))
    groups += np.where(same[:, None] == same, 1.0, 9.0)
    np.fill_diagonal(groups, 0.0)
    names = [f"model {index}" for index in range(10)]
    assert "fell into points" in TaskMap.of(names, groups, "l2", "nonmetric").quality()
    assert "fell into points" not in TaskMap.of(names, groups, "l2", "mds").quality()


def test_a_map_of_two_models_claims_nothing():
    found = TaskMap.of(("a", "b"), [[0.0, 1.0], [1.0, 0.0]], "l2", "mds")
    assert "Too few" in found.quality()
    assert math.isnan(found.agreement)


def test_dendrogram_by_hand():
    given = squareform([3.0, 1.0, 6.0, 5.0, 7.0, 8.0])
    tree = Dendrogram.of("abcd", given, "l2")
    table = tree.to_pandas()
    assert table["height"].tolist() == [1.0, 4.0, 7.0]
    assert [{*row} for row in table[["first", "second"]].to_numpy()[:2]] == [
        {"a", "c"}, {"b", "a, c"},
    ]  # fmt: skip
    axes = tree.figure().axes[0]
    assert len(axes.lines) == 3
    assert [text.get_text() for text in axes.get_yticklabels()] == list(tree.order)
    assert sorted(tree.order) == list("abcd")


def test_heat_map_keeps_each_number_with_its_pair():
    found = survey().heatmap("geodesic")
    frame = found.to_pandas()
    for i, j in itertools.product(range(5), repeat=2):
        assert frame.loc[NAMES[i], NAMES[j]] == pytest.approx(DISTANCES[i, j].mean())
    assert not found.directed
    texts = found.figure().axes[0].texts
    assert len(texts) == 25
    assert sum(text.get_text() == "0" for text in texts) == 5


def test_directed_heat_map_begins_with_what_holds_most():
    values = np.array([[1.0, 0.2, 0.9], [0.1, 1.0, 0.8], [0.1, 0.3, 1.0]])
    found = HeatMap.of("abc", values, "core_energy")
    assert found.directed
    assert found.names == ("c", "b", "a")  # hold 0.85, 0.25 and 0.1 of the others
    assert found.to_pandas().loc["a", "c"] == 0.9
    assert found.figure().axes[0].get_ylabel() == "of this model …"


def test_heat_map_with_gaps():
    gap = np.array([[0.0, np.nan], [np.nan, 0.0]])
    found = HeatMap.of("ab", gap, "l2")
    assert found.names == ("a", "b")
    assert len(found.figure().axes[0].texts) == 2


def test_profile_by_kind_with_chance_as_a_band():
    found = survey().profile("geodesic")
    table = found.to_pandas().set_index(["line", "layer"])
    upper = np.triu_indices(5, 1)
    queries = DISTANCES[..., 2][upper]  # of layer 1
    row = table.loc[("query", 1)]
    assert (row["low"], row["high"]) == pytest.approx((queries.min(), queries.max()))
    assert row["mean"] == pytest.approx(queries.mean())
    assert (row["chance"], row["chance_sd"]) == pytest.approx((2.0, 0.3))
    axes = found.figure().axes[0]
    assert len(axes.lines) == 3  # two kinds and one chance, which both share
    assert len(axes.collections) == 3
    assert axes.lines[-1].get_label() == "random subspaces"
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 3


def test_profile_by_pair():
    found = survey().profile("geodesic", "pair")
    table = found.to_pandas().set_index(["line", "layer"])
    assert len(table) == 10 * LAYERS
    row = table.loc[("sst2 – snips", 2)]
    assert row["mean"] == pytest.approx(DISTANCES[0, 3, 4:].mean())
    # Two independent modules: the deviation of their mean is smaller by √2.
    assert row["chance_sd"] == pytest.approx(0.3 / math.sqrt(2))
    directed = survey().profile("core_energy", "pair").to_pandas()
    assert directed["line"].nunique() == 20
    assert "sst2 in snips" in set(directed["line"])


def test_profile_keeps_encoder_and_decoder_apart():
    values = modules(DISTANCES).assign_coords(
        module=[f"{stack}.block.{i}.q" for stack in ("encoder", "decoder") for i in range(3)],
        layer=("module", [0, 1, 2, 0, 1, 2]), kind=("module", ["query"] * 6),
    )  # fmt: skip
    table = LayerProfile.of(values).to_pandas().set_index(["line", "layer"])
    upper = np.triu_indices(5, 1)
    for place, stack in ((1, "encoder"), (4, "decoder")):
        expected = DISTANCES[..., place][upper].mean()
        assert table.loc[(f"{stack}.block query", 1), "mean"] == pytest.approx(expected)
    pairs = LayerProfile.of(values, "pair").to_pandas().set_index(["line", "layer"])
    assert pairs.loc[("sst2 – snips, decoder.block", 2), "mean"] == DISTANCES[0, 3, 5]
    assert len(pairs) == 2 * 10 * 3


@pytest.mark.filterwarnings("error")
def test_profile_without_any_chance_in_a_layer():
    values, chance = modules(DISTANCES), 0 * modules(DISTANCES) + 2.0
    chance[:, :, :2] = np.nan
    table = LayerProfile.of(values, chance=chance, chance_sd=chance).to_pandas()
    assert table[table["layer"] == 0][["chance", "chance_sd"]].isna().all(axis=None)
    assert (table[table["layer"] > 0]["chance"] == 2.0).all()


def test_profile_leaves_out_what_has_no_layer_and_no_value():
    values = modules(DISTANCES).copy()
    values["layer"] = ("module", [-1, -1, 1, 1, 2, 2])
    values[:, :, 2] = np.nan
    table = LayerProfile.of(values).to_pandas()
    assert set(zip(table["line"], table["layer"], strict=True)) == {
        ("query", 2), ("value", 1), ("value", 2),
    }  # fmt: skip
    assert table["chance"].isna().all()


def test_inclusion_of_a_in_b_in_c():
    shares = np.array([[1.0, 0.9, 0.8], [0.4, 1.0, 0.7], [0.2, 0.3, 1.0]])
    found = InclusionGraph.of("ABC", shares, "core_energy")
    table = found.to_pandas().set_index(["model", "into"])
    assert table[table["drawn"]].index.tolist() == [("A", "B"), ("B", "C")]
    assert table[table["contained"]].index.tolist() == [("A", "B"), ("A", "C"), ("B", "C")]
    assert table.loc[("A", "C"), ["share", "reverse"]].tolist() == [0.8, 0.2]
    assert "2 drawn, for shares from 0.7 to 0.9; 1 more go along paths" in found.rule()
    assert "random" not in found.rule()
    figure = found.figure()
    assert len(figure.axes[0].patches) == 2
    assert len(figure.axes[0].collections) == 3
    assert apart(boxes(figure))


def test_a_path_that_is_no_inclusion_is_told():
    shares = np.array([[1.0, 0.9, 0.2], [0.4, 1.0, 0.7], [0.2, 0.3, 1.0]])
    assert "1 paths are no inclusion" in InclusionGraph.of("ABC", shares, "x").rule()


def test_chance_counts_with_its_deviation():
    shares = np.array([[1.0, 0.5], [0.2, 1.0]])
    chance = np.full((2, 2), 0.3)
    for deviation, expected in ((0.06, 1), (0.07, 0)):  # 0.3 + 3 · 0.07 = 0.51
        found = InclusionGraph.of(
            "AB", shares, "x", chance=chance, chance_sd=np.full((2, 2), deviation)
        )
        assert found.relation.sum() == expected
        assert "random spaces" in found.rule()


def test_a_survey_s_inclusion_takes_means_over_modules():
    found = survey().inclusion()
    assert found.metric == "core_energy"
    np.testing.assert_allclose(found.energies, ENERGIES.mean(axis=-1))
    # Six modules with a deviation of 0.6: 3 · 0.6 / √6 above 0.2.
    above = found.energies[found.relation]
    assert (above > 0.2 + 3 * 0.6 / math.sqrt(6)).all()


def test_spectra_are_shares_of_each_module():
    values = xr.DataArray(
        [[[4.0, 2.0, 1.0, 1.0], [1.0, np.nan, np.nan, np.nan]], np.zeros((2, 4))],
        dims=("task", "module", "direction"),
        coords={"task": ["a", "base"]},
    )
    found = SpectrumCurves.of(values)
    # (4, 2, 1, 1) / 8 and (1, 0, 0, 0), half of each; e^H is 3.3635856610 and 1.
    np.testing.assert_allclose(found.shares[0], [0.75, 0.125, 0.0625, 0.0625], rtol=1e-15)
    assert found.effective_ranks[0] == pytest.approx((3.3635856610 + 1) / 2, rel=1e-10)
    assert np.isnan(found.shares[1]).all()
    assert math.isnan(found.effective_ranks[1])
    assert len(found.figure().axes[0].lines) == 2


def test_every_picture_shows_itself_as_the_same_svg_each_time():
    made = survey()
    pictures = [
        made.map("geodesic"), made.dendrogram("geodesic"), made.heatmap("core_energy"),
        made.profile("geodesic"), made.inclusion(),
    ]  # fmt: skip
    for picture in pictures:
        text = picture._repr_svg_()
        assert text == picture.svg()
        assert len(ET.fromstring(text).findall(".//{http://www.w3.org/2000/svg}path")) > 5
        assert repr(picture).startswith(f"<{type(picture).__name__} of ")


@pytest.mark.parametrize("n", [20, 60])
def test_many_names_keep_apart_on_a_figure_that_grows(n):
    points = np.random.default_rng(1).normal(size=(n, 2))
    names = [f"organisation/model-{index}" for index in range(n)]
    figure = TaskMap.of(names, squareform(pdist(points)), "l2", "mds").figure()
    found = boxes(figure)
    assert apart(found)
    assert len(found) == n
    assert "without room" not in figure.get_supxlabel()


def test_names_without_room_are_counted_and_not_drawn():
    names = ["a name as long as the figure is wide, and longer " * 4, "b", "c"]
    figure = TaskMap.of(names, squareform(pdist(np.eye(3)[:, :2])), "l2", "mds").figure()
    assert len(boxes(figure)) == 2
    assert figure.get_supxlabel().replace("\n", " ").endswith("Names without room: 1.")


def test_models_that_equal_the_base():
    values = modules(DISTANCES).copy()
    values[2], values[:, 2] = np.nan, np.nan
    made = Survey(xr.Dataset({"geodesic": values}), xr.Dataset(), ())
    assert len(made.heatmap("geodesic").figure().axes[0].texts) == 16
    assert len(made.profile("geodesic").to_pandas()) == 2 * LAYERS
    with pytest.raises(UsageError, match="a model with a long name"):
        made.dendrogram("geodesic")
    nothing = Survey(xr.Dataset({"geodesic": values * np.nan}), xr.Dataset(), ())
    with pytest.raises(UsageError, match="in any layer"):
        nothing.profile("geodesic")


def test_wrong_questions_get_an_answer():
    made = survey()
    with pytest.raises(UsageError, match="nonmetric"):
        made.map("geodesic", "nonmetrc")
    with pytest.raises(UsageError, match="it is no distance"):
        made.map("core_energy")
    with pytest.raises(UsageError, match="no distance"):
        made.dendrogram("core_energy")
    with pytest.raises(KeyError, match="geodesic"):
        made.heatmap("geodesik")
    with pytest.raises(UsageError, match="pair"):
        made.profile("geodesic", "pairs")
    with pytest.raises(UsageError, match="core_energy"):
        made.inclusion("geodesic")
    alone = Survey(made.data[["geodesic"]], made.null, ())
    with pytest.raises(UsageError, match="Measured were geodesic"):
        alone.inclusion()
    with pytest.raises(UsageError, match="no singular values"):
        alone.spectrum()
