"""The page in a real browser: no errors, no requests, every control does what it says."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alliage.report import write_report
from alliage.studies.results import read_table, write_table
from tests.report import conftest as made

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(results, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of long names, of numbers very small and very large, and of two groups of models."""
    folder = tmp_path_factory.mktemp("hard") / "results"
    tasks = ("benchmark:" + "a-task-with-a-long-name-" * 3, "benchmark:任务任务任务任务任务任务")
    first = [f"organisation/a-model-with-a-long-name-{index}" for index in range(5)]
    second = ["模型" * 12, "WWWW/MMMM-WWWW-MMMM", "m"]
    distances = [
        {**row, "value": row["value"] * size}
        for names, size in ((first, 1e-5), (second, 1e5))
        for row in made.distances(tuple(names), 3)
    ]
    described = [
        {**made.models()[1], "model": name, "role": role, "layers": layers}
        for names, role, layers in ((first, "single", 4), (second, "pruned", 3))
        for name in names
    ]
    scores = [
        {
            "model": name, "task": task, "split": "validation", "metric": metric,
            "value": value / (index + 1), "examples": 7,
        }
        for index, name in enumerate((*first, *second))
        for task in tasks
        for metric, value in (("matthews", -0.001), ("ece", 0.00012), ("seconds", 1.2e6))
    ]  # fmt: skip
    bins = [{**made.reliability()[0], "model": second[0], "task": tasks[1], "examples": 12_345_678}]
    write_table(folder, "distances", distances)
    for names in (tuple(first), tuple(second)):
        write_table(folder, "inclusion", made.inclusion(names))
        write_table(folder, "interference", made.interference(names))
        write_table(folder, "forecast", made.forecast(names))
    write_table(folder, "spectra", made.spectra((*first, *second)))
    write_table(folder, "models", described)
    write_table(folder, "scores", scores)
    write_table(folder, "reliability", bins)
    return write_report(folder, folder.parent / "report.html")


@pytest.fixture(params=[(1280, "light"), (360, "dark")], ids=["wide-light", "phone-dark"])
def page(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The open report; fails afterwards if anything was complained of or asked for."""
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda sent: requests.append(sent.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {report.as_uri()}


def overflow(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return width


def test_no_sideways_scrolling_whatever_is_open(page: Page) -> None:
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    assert overflow(page) <= 0
    for number in range(page.locator("select").count()):
        select = page.locator("select").nth(number)
        for option in select.locator("option").all_text_contents():
            select.select_option(option)
            assert overflow(page) <= 0


def test_selectors_choose_the_view(page: Page) -> None:
    figure = page.locator("#heat-map")
    metric, modules = figure.locator("select").all()
    metric.select_option("geodesic distance")
    modules.select_option("value")
    (shown,) = [view for view in figure.locator(".view").all() if view.is_visible()]
    assert (
        shown.locator("title").text_content()
        == "Heat map of geodesic distance between 8 models, value"
    )


def test_a_choice_without_a_view_gives_way_to_the_last_one_made(page: Page) -> None:
    figure = page.locator("#reliability")
    model, task = figure.locator("select").all()
    model.select_option("merged-average")
    task.select_option("rte")
    assert "merged-average on rte" in figure.locator(".view:visible").inner_text()
    model.select_option("minilm-cola")  # tuned and scored for one task only
    assert task.input_value() == "cola"
    assert "minilm-cola on cola" in figure.locator(".view:visible").inner_text()
    assert figure.locator(".view:visible").count() == 1


def test_groups_are_chosen_and_other_choices_kept(browser: Browser, hard: Path) -> None:
    opened = browser.new_page()
    opened.goto(hard.as_uri())
    for identifier in ("map", "heat-map"):
        figure = opened.locator(f"#{identifier}")
        models, metric, modules = figure.locator("select").all()
        metric.select_option("L2 distance")
        modules.select_option("value")
        first, second = models.locator("option").all_text_contents()
        assert models.input_value() == first
        models.select_option(second)
        assert (metric.input_value(), modules.input_value()) == ("L2 distance", "value")
        titles = figure.locator(".view:visible title").all_text_contents()
        assert titles
        assert all("3 models" in title and title.endswith("value") for title in titles)
    opened.close()


CLIPPED = """() => {
  for (const view of document.querySelectorAll(".view")) view.classList.remove("unchosen");
  const clipped = [];
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      const out = Math.max(frame.left - box.left, box.right - frame.right,
                           frame.top - box.top, box.bottom - frame.bottom);
      if (out > 0.5) clipped.push(`${text.textContent} by ${out.toFixed(1)} px`);
    }
  }
  return clipped;
}"""


OVERLAPPING = """() => {
  for (const view of document.querySelectorAll(".view")) view.classList.remove("unchosen");
  const overlapping = [];
  for (const svg of document.querySelectorAll("svg")) {
    const texts = [...svg.querySelectorAll(".tick, .label, .legend text")];
    const boxes = texts.map((text) => text.getBoundingClientRect());
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 0 && high > 2) {  // a line's box is higher than its letters
        overlapping.push(`${texts[i].textContent} and ${texts[i + 1 + j].textContent}`);
      }
    }));
  }
  return overlapping;
}"""


def test_ticks_labels_and_legends_keep_apart(browser: Browser, report: Path, hard: Path) -> None:
    opened = browser.new_page()
    for path in (report, hard):
        opened.goto(path.as_uri())
        assert opened.evaluate(OVERLAPPING) == []
    assert opened.locator("#inclusion .head").count() > 5
    assert opened.locator("#spectra .line").count() > 5
    opened.close()


@pytest.mark.parametrize("width", [1280, 360])
def test_no_text_leaves_its_picture(browser: Browser, report: Path, hard: Path, width: int) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 800})
    for path in (report, hard):
        opened.goto(path.as_uri())
        assert opened.locator("svg text").count() > 100
        assert opened.evaluate(CLIPPED) == []
        assert overflow(opened) <= 0
    opened.close()


def test_the_column_of_models_stays_when_the_table_is_scrolled(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    table, name = page.locator("#models .scroll"), page.locator("#models tbody th").first
    before = name.bounding_box()
    table.evaluate("box => { box.scrollLeft = 300; }")
    assert table.evaluate("box => box.scrollLeft") == 300
    after = name.bounding_box()
    assert before
    assert after
    assert after["x"] == before["x"]
    assert after["width"] < 180


def test_theme(page: Page) -> None:
    def background() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    before = background()
    button = page.locator("#theme")
    label = button.inner_text()
    button.click()
    assert background() != before
    assert button.inner_text() != label
    button.click()
    assert background() == before


def test_sorting(page: Page, results: Path) -> None:
    table = read_table(results, "models")
    heading = page.locator("#models thead th").filter(has_text="layers")
    names = page.locator("#models tbody th")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert names.all_text_contents()[-1] == "minilm-sst2-best-4"
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert names.all_text_contents()[0] == "minilm-sst2-best-4"
    page.locator("#models thead th").first.get_by_role("button").click()
    assert names.all_text_contents() == sorted(table["model"])


def test_plain_tables_are_sorted_too(browser: Browser, hard: Path) -> None:
    opened = browser.new_page(viewport={"width": 360, "height": 800})
    opened.goto(hard.as_uri())
    cells = opened.locator("#interference-2 tbody td:nth-child(2)")  # of the second run
    heading = opened.locator("#interference-2 thead th").filter(has_text="share kept")
    heading.get_by_role("button").click()
    shown = [float(text) for text in cells.all_text_contents()]
    assert shown == sorted(shown, reverse=True)
    assert len(set(shown)) == 3
    assert opened.locator("#models thead th[aria-sort=none]").count() > 5
    opened.close()


def test_a_score_that_is_missing_sorts_last_both_ways(page: Page) -> None:
    cells = page.locator("#models tbody td:nth-child(9)")
    button = page.locator("#models thead th").filter(has_text="cola").get_by_role("button")
    for descending in (True, False):
        button.click()
        shown = cells.all_text_contents()
        values = [float(text) for text in shown if text != "–"]
        assert values == sorted(values, reverse=descending)
        assert shown[len(values) :] == ["–"] * (len(shown) - len(values))


def test_filtering(page: Page) -> None:
    page.locator("#models input").fill("MERGED ties")
    rows = page.locator("#models tbody tr:visible")
    assert rows.locator("th").all_text_contents() == ["merged-ties-0.2"]
    assert page.locator("#models output").inner_text() == "1 of 13 models"
    page.locator("#models input").fill("")
    assert rows.count() == 13


def test_pointing_at_a_mark_says_it_and_finds_the_model_everywhere(page: Page) -> None:
    mark = page.locator("#scores-by-task .view:visible .mark.base[data-tip]").first
    model = mark.get_attribute("data-model")
    mark.scroll_into_view_if_needed()
    mark.hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    assert tip.inner_text() == mark.get_attribute("data-tip")
    box = tip.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= page.evaluate("innerWidth")
    same = page.locator(".same").evaluate_all("found => found.map(one => one.dataset.model)")
    assert len(same) > 3
    assert set(same) == {model}
    page.mouse.move(1, 1)
    assert tip.is_hidden()
    assert page.locator(".same").count() == 0


def test_arrow_keys_walk_from_cell_to_cell(page: Page) -> None:
    picture = page.locator("#heat-map .view:visible svg")
    picture.focus()
    tip = page.locator("#tip")
    tips = picture.locator(".cell").evaluate_all("cells => cells.map(cell => cell.dataset.tip)")
    for key, index in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowDown", 9), ("ArrowLeft", 8)):
        page.keyboard.press(key)
        assert tip.inner_text() == tips[index]
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_everything_is_reached_by_tab(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert {"A", "BUTTON", "SELECT", "svg", "SUMMARY", "INPUT"} <= reached


def test_saved_data_are_the_table(page: Page, results: Path, tmp_path: Path) -> None:
    with page.expect_download() as download:
        page.locator("#reliability .save").click()
    assert download.value.suggested_filename == "reliability.csv"
    path = tmp_path / "reliability.csv"
    download.value.save_as(path)
    with path.open(newline="") as file:
        saved = list(csv.DictReader(file))
    table = read_table(results, "reliability")
    assert {(row["model"], row["task"], float(row["accuracy"])) for row in saved} == {
        (row.model, row.task, row.accuracy) for row in table.itertuples()
    }


def test_print_is_light_and_without_controls(page: Page) -> None:
    page.set_viewport_size({"width": 794, "height": 1123})  # A4 at 96 dpi
    page.emulate_media(media="print")
    assert overflow(page) <= 0
    assert page.locator("nav").is_hidden()
    assert not [button for button in page.locator(".save").all() if button.is_visible()]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(252, 252, 250)"


def test_without_javascript_every_view_is_shown(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 800})
    opened = context.new_page()
    opened.goto(report.as_uri())
    views = opened.locator("#heat-map .view").all()
    assert len(views) == 9
    assert all(view.is_visible() for view in views)
    context.close()
