import json
from pathlib import Path

from alliage.merging import list_methods


def test_the_list_and_one_method(alliage):
    done = alliage("methods")
    assert f"{len(list_methods())} merge methods" in done.stdout
    one = alliage("methods ties")
    for word in ("arXiv:2306.01708", "density", "(0, 1]", "departures", "twice"):
        assert word in one.stdout
    document = json.loads(alliage("methods ties --json").stdout)["methods"][0]
    assert (document["takes_signs"], document["masks"]) == (True, False)
    density = next(p for p in document["parameters"] if p["name"] == "density")
    assert (density["default"], density["range"]) == (0.2, "(0, 1]")


def test_the_page_in_the_documentation_is_what_the_command_prints(alliage):
    page = Path(__file__).parents[2] / "docs" / "methods.md"
    assert page.read_text() == alliage("methods --markdown").stdout


def test_a_wrong_name(alliage):
    done = alliage("methods dare_tis")
    assert done.returncode == 2
    assert "there is no merge method" in done.stderr


def test_the_page_has_a_section_for_each_and_no_broken_table(alliage):
    page = alliage("methods --markdown").stdout
    for name in list_methods():
        assert f"\n## {name}\n" in page
        assert f"| [{name}](#{name}) |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {row.count("|") - row.count("\\|") for row in rows} == {5}
    assert "[arXiv:2306.01708](https://arxiv.org/abs/2306.01708)" in page
    one = alliage("methods fisher --markdown").stdout
    assert one.count("\n## ") == 1
    masks = alliage("methods emr --markdown").stdout
    assert "reads every model twice" in masks
    assert "- Keeps masks, by which `alliage apply --task` rebuilds each model." in masks
    assert "Takes given signs" in alliage("methods ties").stdout
    assert "Needs statistics: fisher" in one
