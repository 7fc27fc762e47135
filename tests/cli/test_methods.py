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


def test_readings_are_those_of_the_defaults_and_what_changes_them_is_named(alliage):
    said = {name: alliage(f"methods {name}").stdout for name in ("pcb", "sce", "dare_ties")}
    assert "reads every model 3 times\n" in said["pcb"]
    assert "reads every model 3 times, twice with density 1\n" in said["sce"]
    assert "reads every model once, twice with rescale l1\n" in said["dare_ties"]
    assert "once, and again for what its rule has to know" in alliage("methods knots").stdout


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


def test_a_broken_plug_in_is_named_and_everything_else_goes_on(alliage, install_plug_in):
    from alliage.merging.registry import _load_all

    install_plug_in("broken", "raise RuntimeError('does not work')\n", first="first_only")
    where = "broken 1.2 (first = broken:first_only)"
    why = "RuntimeError: does not work"
    listed = alliage("methods")
    assert listed.returncode == 0
    assert listed.stdout.rstrip().endswith(f"left out: {where}: {why}")
    assert listed.stderr == f"alliage: {where}: this plug-in of merge methods is left out: {why}\n"
    document = json.loads(alliage("methods ties --json").stdout)
    assert document["left_out"] == [{"plug_in": where, "problem": why}]
    _load_all.cache_clear()
    merged = alliage("merge merge.yml -o out")
    assert merged.returncode == 0
    assert merged.stderr.count(where) == 1
    asked = alliage("merge --method first_only --base base sentiment topics -o other")
    assert asked.returncode == 2
    assert f"'first_only' would come with {where}, which is left out: {why}" in asked.stderr


def test_a_plug_ins_merge_says_which_package_it_comes_from(alliage, workspace, install_plug_in):
    install_plug_in(
        "my_merge",
        "from alliage.merging import method\n\n\n"
        '@method("first_only", unit="block", space="delta", paper="none")\n'
        'def first_only(deltas):\n    """Keep the first model."""\n    return deltas[0].clone()\n',
        first="first_only",
    )
    where = "my-merge 1.2 (first = my_merge:first_only)"
    assert alliage("methods").stdout.rstrip().endswith(f"first_only: of {where}")
    assert f"plug-in     {where}" in alliage("methods first_only").stdout
    documents = json.loads(alliage("methods --json").stdout)["methods"]
    assert {each["name"]: each["plug_in"] for each in documents if each["plug_in"]} == {
        "first_only": where
    }
    for method, out in (("first_only", "theirs"), ("ties", "ours")):
        done = alliage(f"merge --method {method} --base base sentiment topics -o {out}")
        assert done.returncode == 0, done.stderr
    theirs, ours = (
        json.loads((workspace / out / "alliage.json").read_text())["versions"]
        for out in ("theirs", "ours")
    )
    assert theirs == ours | {"my-merge": "1.2"}
    assert "my-merge 1.2" in (workspace / "theirs" / "README.md").read_text()
    checked = alliage("verify theirs").stdout
    assert checked.splitlines()[-1].startswith("Made with python ")
    assert checked.rstrip().endswith("my-merge 1.2.")
    assert json.loads(alliage("verify theirs --json").stdout)["versions"] == theirs
    record = workspace / "ours" / "alliage.json"
    content = json.loads(record.read_text())
    for versions in (None, {"steers\x1b[2J": "1"}):
        record.write_text(json.dumps(content | {"versions": versions}))
        assert alliage("verify ours").stdout.endswith("Made with versions that it does not tell.\n")


def test_a_plug_in_with_half_a_first_pass_stops_no_page(alliage, install_plug_in):
    install_plug_in(
        "my_merge",
        "from alliage.merging import method\n\n\nclass Half:\n    reads = ()\n\n\n"
        '@method("first_only", unit="block", space="delta", paper="none", first_pass=Half)\n'
        'def first_only(deltas):\n    """Keep the first model."""\n    return deltas[0]\n',
        first="first_only",
    )
    done = alliage("methods --markdown")
    assert done.returncode == 0, done.stderr
    assert "## ties" in done.stdout
    assert "first_only" not in done.stdout
    assert "lacks scope, least_passes, memory, update, result" in done.stderr
