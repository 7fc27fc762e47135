"""Spectra, inclusion and interference in the report: what is drawn is what the tables say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alliage.geometry.surveying.metrics import METRICS
from alliage.report import render_report
from alliage.report.data_table import (
    ROW_LIMIT,
    data_table,
    forecast_table,
    interference_tables,
)
from alliage.report.directed import directed
from alliage.report.figures.inclusion import inclusion
from alliage.report.figures.spectra import spectra, spectrum_curves
from alliage.report.words import is_distance
from alliage.studies.results import TABLES, read_table, write_table
from tests.report import conftest as made
from tests.report.page import Page

HOSTILE = "</script><svg/onload=x>"


def frame(table: str, rows: made.Rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(TABLES[table]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("geometry")
    names = ("a", "b", HOSTILE)
    write_table(folder, "inclusion", made.inclusion(names), command="alliage compare")
    write_table(folder, "spectra", made.spectra(names), command="alliage compare")
    write_table(folder, "interference", made.interference(names), command="alliage interference")
    write_table(folder, "forecast", made.forecast(names), command="alliage forecast")
    write_table(folder, "distances", made.distances(names, 2), command="alliage compare")
    return Page(render_report(folder))


def test_spectra_by_hand() -> None:
    columns = ["model", "module", "layer", "kind", "direction", "value"]
    rows = [("a", "0.q", 0, "query", index, value) for index, value in enumerate((4, 2, 1, 1))]
    rows += [("a", "0.v", 0, "value", 0, 3.0), ("base", "0.q", 0, "query", 0, 0.0)]
    every, query, value = spectra(pd.DataFrame(rows, columns=columns))
    # (4, 2, 1, 1) / 8 and (1, 0, 0, 0), half of each; e^H is 3.3635856610 and 1.
    np.testing.assert_allclose(every.shares[0], [0.75, 0.125, 0.0625, 0.0625], rtol=1e-14)
    assert every.names == ("a", "base")
    assert np.isnan(every.shares[1]).all()
    svg = str(spectrum_curves([every]).views[0].panels[0].svg)
    assert "base (equals the base)" in svg
    assert len(re.findall(r'<path class="line ', svg)) == 1
    assert every.effective_ranks[0] == pytest.approx((3.3635856610 + 1) / 2, rel=1e-10)
    assert (query.modules, value.modules) == ("query", "value")
    assert query.effective_ranks[0] == pytest.approx(3.3635856610, rel=1e-10)
    assert spectra(frame("spectra", [])) == []


def test_a_line_and_dots_for_each_spectrum() -> None:
    figure = spectrum_curves(spectra(frame("spectra", made.spectra(layers=1))))
    assert [view.choice for view in figure.views] == [("all modules",), ("query",), ("value",)]
    svg = str(figure.views[0].panels[0].svg)
    assert len(re.findall(r'<path class="line ', svg)) == len(made.SINGLES)
    assert len(re.findall("<circle ", svg)) == 8 * len(made.SINGLES)
    looks = re.findall(r'<path class="line (hue-\d dash-\d)"', svg)
    assert len(set(looks)) == len(looks)


def test_more_models_than_looks_are_named() -> None:
    names = tuple(f"m{index:02}" for index in range(30))
    figure = spectrum_curves(spectra(frame("spectra", made.spectra(names, 1))))
    assert figure.notes == ("The first 28 of 30 models by name are drawn.",)
    assert {row[1] for row in figure.data.rows} == set(names)


def test_inclusion_by_hand() -> None:
    (energy, overlap) = directed(frame("inclusion", made.inclusion(("a", "b", "c"))))
    assert (energy.metric, overlap.metric) == ("core_energy", "rec")
    # Means over two layers, 0.02 apart.
    np.testing.assert_allclose(energy.values[0], [np.nan, 0.81, 0.71], rtol=1e-14)
    np.testing.assert_allclose(energy.values[2], [0.21, 0.21, np.nan], rtol=1e-14)
    assert energy.chance_sd[0, 1] == pytest.approx(0.01 / np.sqrt(2))
    figure = inclusion([energy, overlap])
    graph, cells = figure.views[0].panels
    assert len(re.findall('class="arrow"', str(graph.svg))) == 2  # a in b in c; a in c follows
    assert "a in b: 0.81" in str(graph.svg)
    assert "c: holds a, b" in str(graph.svg)
    assert len(re.findall("<rect class=.cell", str(cells.svg))) == 9
    assert len(figure.views[1].panels) == 1  # no graph of what is no energy
    found = {(row[2], row[3]): row[7:] for row in figure.data.rows if row[1] == "core_energy"}
    assert found[("a", "b")] == (1, 1)
    assert found[("a", "c")] == (1, 0)
    assert found[("c", "a")] == (0, 0)


def test_interference_by_hand() -> None:
    (table,) = interference_tables(frame("interference", made.interference(("a", "b", "c"))))
    assert (table.id, table.title) == ("interference", "Interference")
    assert [name for name, _ in table.columns] == [
        "models", "share kept", "conflict", "by chance", "overlap"
    ]  # fmt: skip
    texts = [[cell.text for cell in row] for row in table.rows]
    assert texts[1] == ["all 3 models", "0.200", "0.400", "0.900", "–"]
    assert texts[3][0] == "any 2 of 3, mean"
    assert texts[6][:2] == ["a – b", "0.100"]
    assert len(texts) == 3 + 3 + 9
    assert "At the largest 20%, signs conflict in 40.0%" in table.sentences[1]
    assert "90.0%" in table.sentences[1]
    assert interference_tables(frame("interference", [])) == []


def test_forecast_by_hand() -> None:
    columns = ["models", "task", "method", "needs", "loss", "low", "high", "refused"]
    rows = [
        ("a + b", "a", "ties", "weights", 5.25, 3.0, 8.0, ""),
        ("a + b", "b", "ties", "weights", -0.5, -1.0, 1.0, ""),
        ("a + c", "a", "ties", "weights", np.nan, np.nan, np.nan, "rank 64 was never seen"),
    ]
    table = forecast_table(pd.DataFrame(rows, columns=columns))
    assert table is not None
    texts = [[cell.text for cell in row] for row in table.rows]
    assert texts[0][1:7] == ["b", "ties", "weights", "−0.500", "−1", "1"]
    assert texts[2][4:] == ["–", "–", "–", "rank 64 was never seen"]
    assert table.sentences[1:] == (
        "Least: b in a + b by ties, −0.500 (−1.00 to 1.00).",
        "Most: a in a + b by ties, 5.25 (3.00 to 8.00).",
        "1 row without a forecast: see the last column.",
    )
    known = forecast_table(pd.DataFrame(rows[:1], columns=columns))
    assert known is not None
    assert "refused" not in dict(known.columns)
    assert len(known.sentences) == 2
    assert forecast_table(pd.DataFrame(columns=columns)) is None


def test_long_tables_say_how_much_is_left_out() -> None:
    table = data_table("x", "X", (), pd.DataFrame({"n": range(ROW_LIMIT + 7)}))
    assert (len(table.rows), table.left_out) == (ROW_LIMIT, 7)
    assert table.rows[3][0].text == "3"


def test_names_are_text_in_new_figures_and_tables(page: Page) -> None:
    assert len(page.raw["script"]) == 1
    assert not any(key.startswith("on") for _, found in page.elements for key in found)
    assert HOSTILE in page.text
    assert {row["model"] for row in page.rows("spectra")} == {"a", "b", HOSTILE}
    assert {row["into"] for row in page.rows("inclusion")} == {"a", "b", HOSTILE}


def test_all_of_geometry_is_in_one_section(page: Page) -> None:
    figures = [figure["id"] for figure in page.attributes("figure")]
    assert figures == ["map", "heat-map", "layer-profile", "spectra", "inclusion"]
    assert "Interference" in page.text
    assert "1 row without a forecast" in page.text
    assert "Kruskal 1964" in page.text
    # Means over two layers: 0.8 and 0.82 of a in b, 0.2 and 0.22 of b in a.
    said = "By core energy, a lies most in b (0.810 of it, the other way round 0.210; random"
    assert said in page.text
    assert {"nonmetric1", "nonmetric2"} <= page.rows("map")[0].keys()


def test_what_is_no_distance_has_neither_map_nor_tree(tmp_path: Path) -> None:
    rows = [
        {**row, "metric": "sign_agreement"}
        for row in made.distances(("a", "b", "c"), 2)
        if row["metric"] == "l2"
    ]
    write_table(tmp_path, "distances", rows)
    page = Page(render_report(tmp_path))
    assert [figure["id"] for figure in page.attributes("figure")] == ["heat-map", "layer-profile"]
    assert not [one for one in page.attributes("path") if one.get("class") == "tree"]
    assert "are nearest" not in page.text


def test_negative_values_of_an_unknown_metric_are_drawn_as_numbers(tmp_path: Path) -> None:
    rows = [
        {**row, "metric": "mine", "value": -row["value"]}
        for row in made.distances(("a", "b", "c"), 1)
        if row["metric"] == "l2"
    ]
    write_table(tmp_path, "distances", rows)
    page = Page(render_report(tmp_path))
    assert [figure["id"] for figure in page.attributes("figure")] == ["heat-map"]


def test_the_report_and_the_survey_agree_on_what_a_distance_is() -> None:
    for name, metric in METRICS.items():
        if not metric.directed:
            assert is_distance(name) == (metric.sense == "distance"), name


COMMAND = "alliage compare --base base a b --rank"


def test_two_runs_of_interference_are_two_tables(tmp_path: Path) -> None:
    whole = made.interference(("a", "b", "c"))
    queries = [{**row, "value": row["value"] / 10} for row in whole]
    for rows, option in ((whole, ""), (queries, " --modules q")):
        command = f"alliage interference --base base a b c{option} -o results"
        for folder in (tmp_path, tmp_path / "copy"):  # what was copied stands once
            write_table(folder, "interference", rows, command=command)
    found = interference_tables(read_table(tmp_path, "interference", runs=True))
    conflicts = {table.title.partition(": ")[2]: table.rows[1][2].text for table in found}
    assert len({table.id for table in found}) == 2
    assert conflicts["--modules q"] == "0.0400"
    assert sorted(conflicts.values()) == ["0.0400", "0.400"]


def test_two_runs_of_compare_are_not_summed(tmp_path: Path) -> None:
    for rank, factor in ((4, 1.0), (8, 0.5)):
        held = [{**row, "value": row["value"] * factor} for row in made.inclusion(("a", "b"))]
        write_table(tmp_path, "inclusion", held, command=f"{COMMAND} {rank}")
        used = made.spectra(("a", "b"), layers=1, rank=rank)
        write_table(tmp_path, "spectra", used, command=f"{COMMAND} {rank}")
    found = directed(read_table(tmp_path, "inclusion", runs=True))
    shares = {one.models[-8:]: one.values[0, 1] for one in found if one.metric == "core_energy"}
    assert shares == pytest.approx({"--rank 4": 0.81, "--rank 8": 0.405})
    curves = spectra(read_table(tmp_path, "spectra", runs=True))
    every = {one.modules[-8:]: one for one in curves if one.modules.startswith("all modules")}
    for rank in (4, 8):
        expected = np.exp(-np.arange(rank))
        shares_of_a = every[f"--rank {rank}"].shares[0]
        np.testing.assert_allclose(shares_of_a, expected / expected.sum(), rtol=1e-12)
    page = Page(render_report(tmp_path))
    assert "Among a and b, run 1: --rank" in page.text


@pytest.mark.parametrize("table", ["interference", "inclusion", "spectra"])
def test_rows_twice_in_a_run_are_refused(table: str) -> None:
    make = {"interference": interference_tables, "inclusion": directed, "spectra": spectra}[table]
    rows = frame(table, getattr(made, table)(("a", "b")))
    with pytest.raises(ValueError, match=r"duplicate|non-unique"):
        make(pd.concat([rows, rows.assign(value=rows["value"] / 2)], ignore_index=True))
