"""The page as a whole: self-contained, escaped, repeatable, complete where tables are missing."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from alliage.errors import AlliageError, UsageError
from alliage.report import render_report, write_report
from alliage.studies.results import TABLES, read_table, write_table
from tests.report import conftest as made
from tests.report.page import Page


@pytest.fixture(scope="module")
def html(results: Path) -> str:
    return render_report(results)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_is_loaded_from_elsewhere(html: str, page: Page) -> None:
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "xlink:href", "poster", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith("#") or value == "data:,"
        assert "style" not in attributes
        assert not any(key.startswith("on") for key in attributes)
    assert not re.search(r"@import|url\(", html)
    assert "http:" not in html
    assert "https:" not in html


def test_the_policy_allows_this_style_and_this_script_only(page: Page) -> None:
    (policy,) = (
        meta["content"]
        for meta in page.attributes("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    for name in ("style", "script"):
        (text,) = page.raw[name]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert directives[f"{name}-src"] == f"'sha256-{digest}'"


def test_names_are_text_whatever_they_hold(html: str, page: Page) -> None:
    assert "<script>alert" not in html
    assert "minilm-<script>alert(1)</script>" in page.text + str(page.elements)
    assert len(page.raw["script"]) == 1


@pytest.mark.parametrize(
    "name",
    ['"><img src=x onerror=alert(1)>', "../../etc/passwd", "</script><svg/onload=x>", "{{7*7}}"],
)
def test_hostile_names_everywhere(tmp_path: Path, name: str) -> None:
    models = [*made.models(), {**made.models()[1], "model": name, "method": name, "path": name}]
    scores = [{**row, "task": name} for row in made.scores() if row["model"] == "minilm"]
    reliability = [{**row, "model": name} for row in made.reliability()]
    write_table(tmp_path, "distances", made.distances((*made.COMPARED, name), 2), command=name)
    write_table(tmp_path, "models", models, command=name)
    write_table(tmp_path, "scores", scores)
    write_table(tmp_path, "reliability", reliability)
    page = Page(render_report(tmp_path))
    assert len(page.raw["script"]) == 1
    assert not page.attributes("img")
    assert not any(key.startswith("on") for _, found in page.elements for key in found)
    assert name in page.text
    assert any(found.get("data-model") == name for _, found in page.elements)


def test_same_tables_same_bytes(results: Path, tmp_path: Path) -> None:
    first = write_report(results, tmp_path / "a.html").read_bytes()
    again = shutil.copytree(results, tmp_path / results.name)
    assert write_report(again, tmp_path / "b.html").read_bytes() == first


@pytest.mark.parametrize("missing", ["distances", "models", "scores", "reliability"])
def test_a_missing_table_is_said_in_words(results: Path, tmp_path: Path, missing: str) -> None:
    folder = shutil.copytree(results, tmp_path / "some")
    next(folder.glob(f"{missing}-*.parquet")).unlink()
    page = Page(render_report(folder))
    figures = {figure["id"] for figure in page.attributes("figure")}
    words = {
        "distances": ("No table of distances", {"map", "heat-map", "layer-profile"}),
        "models": ("14 models: 14 other", {"trade-offs"}),
        "scores": ("No scores in this folder", {"scores-by-task", "trade-offs"}),
        "reliability": ("Lowest expected calibration error", {"reliability"}),
    }
    sentence, gone = words[missing]
    assert sentence in page.text
    assert not gone & figures
    assert len(figures) == 7 - len(gone)


def test_every_figure_names_the_command_behind_it(page: Page) -> None:
    assert page.text.count(made.COMPARE) == 3 + 1  # three figures and the table of commands
    assert page.text.count(made.EVALUATE) == 4 + 1


def test_pictures_have_names_for_screen_readers(html: str, page: Page) -> None:
    pictures = page.attributes("svg")
    assert pictures
    assert all(svg["role"] == "img" and svg["tabindex"] == "0" for svg in pictures)
    assert len(re.findall(r"<svg[^>]*><title>[^<]+</title>", html)) == len(pictures)
    assert page.attributes("html")[0]["lang"] == "en"


def test_identifiers_are_unique(page: Page) -> None:
    identifiers = [found["id"] for _, found in page.elements if "id" in found]
    assert len(identifiers) == len(set(identifiers))
    targets = [a["href"] for a in page.attributes("a")]
    assert all(target and target[1:] in identifiers for target in targets)


def test_tasks_with_a_common_prefix_are_shown_without_it_and_saved_with_it(
    results: Path, page: Page, tmp_path: Path
) -> None:
    for table in TABLES:
        rows = read_table(results, table).to_dict("records")
        named = [{**row, "task": f"glue/{row['task']}"} if "task" in row else row for row in rows]
        write_table(tmp_path, table, named)
    prefixed = Page(render_report(tmp_path))
    assert "The names of all tasks begin with “glue/”" in prefixed.text
    assert prefixed.text.count("glue/") == 1
    for figure in ("scores-by-task", "trade-offs", "calibration-error", "reliability"):
        assert prefixed.rows(figure) == [
            {**row, "task": f"glue/{row['task']}"} for row in page.rows(figure)
        ]


def test_what_pruning_costs_is_told_of_single_and_pruned_models(page: Page) -> None:
    rows = page.rows("trade-offs")
    assert {(row["model"], row["layers"]) for row in rows} == {
        ("minilm-sst2", 12), ("minilm-sst2-lora", 12), (made.PRUNED[0], 6), (made.PRUNED[1], 4),
    }  # fmt: skip
    assert {row["task"] for row in rows} == {"sst2"}


def test_people_read_words_and_programs_read_names(tmp_path: Path) -> None:
    scores = [
        {**row, "metric": {"f1": "f1_macro"}.get(row["metric"], row["metric"])}
        for row in made.scores()
    ]
    distances = [{**row, "metric": "fubini_study"} for row in made.distances(layers=2)]
    write_table(tmp_path, "scores", scores)
    write_table(tmp_path, "distances", distances)
    page = Page(render_report(tmp_path))
    seen = page.text + "".join(str(found.get("data-tip")) for _, found in page.elements)
    assert "macro F1" in seen
    assert "Fubini–Study distance (radians)" in seen
    assert not re.search(r"f1_macro|fubini_study|\bece\b", seen)
    assert {row["metric"] for row in page.rows("scores-by-task")} == {"accuracy", "f1_macro"}
    assert {row["metric"] for row in page.rows("heat-map")} == {"fubini_study"}


def test_scores_in_the_page_are_those_of_the_table(results: Path, page: Page) -> None:
    table = read_table(results, "scores")
    shown = {
        (row["model"], row["task"], row["metric"]): row["value"]
        for row in page.rows("scores-by-task")
    }
    shown |= {
        (row["model"], row["task"], "ece"): row["ece"] for row in page.rows("calibration-error")
    }
    assert shown == {(row.model, row.task, row.metric): row.value for row in table.itertuples()}


def test_bins_in_the_page_are_those_of_the_table(results: Path, page: Page) -> None:
    table = read_table(results, "reliability").drop(columns="split")
    shown = {tuple(row.values()) for row in page.rows("reliability")}
    assert shown == set(table.itertuples(index=False, name=None))


def test_distances_in_the_page_are_means_of_the_table(results: Path, page: Page) -> None:
    table = read_table(results, "distances")
    shown = page.rows("heat-map")
    assert len(shown) == 28 * 3 * 3  # pairs, metrics, all modules and each of two kinds
    for row in shown[::11]:
        names = [row["first"], row["second"]]
        part = table[table["metric"] == row["metric"]]
        part = part[part["first"].isin(names) & part["second"].isin(names)]
        if row["modules"] != "all modules":
            part = part[part["kind"] == row["modules"]]
        assert row["value"] == pytest.approx(sum(part["value"]) / len(part), rel=1e-12)


def test_thousands_of_rows_stay_under_ten_megabytes(tmp_path: Path) -> None:
    names = tuple(f"organisation/model-{index:04}-<&>" for index in range(80))
    described = [{**made.models()[1], "model": f"{name}-{k}"} for name in names for k in range(20)]
    scores = [
        {**made.scores()[0], "model": row["model"], "task": f"task-{task}", "value": index / 1600}
        for index, row in enumerate(described)
        for task in range(6)
    ]
    bins = [{**row, "model": f"model-{k}"} for row in made.reliability() for k in range(60)]
    write_table(tmp_path, "distances", made.distances(names, 1))
    write_table(tmp_path, "models", described)
    write_table(tmp_path, "scores", scores)
    write_table(tmp_path, "reliability", bins)
    html = render_report(tmp_path)
    assert len(html.encode()) < 10_000_000
    text = re.sub(r"\s+", " ", Page(html).text)
    for sentence in (
        "48 of 80 models are drawn",
        "of 1600 models on 6 of 6 tasks are drawn",
        "more diagrams are not drawn",
        "more models are in the tables under Provenance",
        "rows; ",
    ):
        assert sentence in text


def test_an_older_report_is_replaced_whole(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    out.parent.mkdir()
    out.write_text("old")
    assert write_report(results, out) == out
    assert out.read_text().startswith("<!doctype html>")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_a_file_that_cannot_be_written(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AlliageError, match="cannot be written"):
        write_report(results, tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_folder_no_tables_damaged_tables(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        render_report(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"found no rows.*alliage compare"):
        write_report(tmp_path / "empty", tmp_path / "report.html")
    (tmp_path / "empty" / "scores-x.parquet").write_bytes(b"PAR1")
    with pytest.raises(AlliageError, match="no readable Parquet"):
        write_report(tmp_path / "empty", tmp_path / "report.html")
    with pytest.raises(UsageError, match="is a folder"):
        write_report(tmp_path / "empty", tmp_path)
    assert not (tmp_path / "report.html").exists()
