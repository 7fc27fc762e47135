import json

from alliage.merging import list_methods


def test_the_list_and_one_method(alliage):
    done = alliage("methods")
    assert f"{len(list_methods())} merge methods" in done.stdout
    one = alliage("methods ties")
    for word in ("arXiv:2306.01708", "density", "(0, 1]", "departures", "twice"):
        assert word in one.stdout
    document = json.loads(alliage("methods ties --json").stdout)["methods"][0]
    density = next(p for p in document["parameters"] if p["name"] == "density")
    assert (density["default"], density["range"]) == (0.2, "(0, 1]")


def test_a_wrong_name(alliage):
    done = alliage("methods dare_tis")
    assert done.returncode == 2
    assert "there is no merge method" in done.stderr
