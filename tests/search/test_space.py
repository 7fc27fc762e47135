from __future__ import annotations

import pytest

from alliage.errors import UsageError
from alliage.merging import parse_recipe
from alliage.search.space import PRESETS, Search, parse_spaces, preset_spaces, read_spaces


@pytest.fixture
def search(recipe):
    def make(content, made=None):
        made = made or recipe(parameters={"density": 0.3, "vote": "sum"})
        return Search(made, parse_spaces(content, made, "recipe"))

    return make


def test_a_grid_has_every_point_and_the_last_factor_changes_fastest(search):
    found = search(
        {"parameters": {"scale": {"low": 0.8, "high": 1.1, "step": 0.1}, "density": [0.1, 0.2]}}
    )
    points = [values for _, values in found.grid()]
    assert points == [
        {"density": density, "scale": scale}
        for density in (0.1, 0.2)
        for scale in (0.8, 0.9, 1.0, 1.1)
    ]
    made = found.recipe_at((found.spaces[0], points[5]))
    # What is searched takes the place of the recipe's own value; the rest stays.
    assert made.parameters == {"density": 0.2, "vote": "sum", "scale": 0.9}
    assert made.models == found.recipe.models


def test_the_papers_grids(recipe):
    # k in {10, 20, 30} %, λ from 0.8 to 3.0 in steps of 0.1: 3 · 23; λ from 0.1 to 1.0: 10.
    sizes = {}
    for name in PRESETS:
        made = Search(recipe(), preset_spaces(name, recipe()))
        sizes[name] = [values["scale"] for _, values in made.grid()]
    assert len(sizes["yadav-2023-ties"]) == 69
    assert sizes["yadav-2023-ties"][:23] == [round(0.8 + i / 10, 1) for i in range(23)]
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert sizes["yadav-2023-task-arithmetic"] == expected
    with pytest.raises(UsageError, match="Did you mean 'yadav-2023-ties'"):
        preset_spaces("yadav-2023-tis", recipe())


def test_several_methods_and_a_value_for_every_model(search):
    found = search(
        [
            {"method": "average", "parameters": {"weight": {"values": [1, 2], "each": True}}},
            {"method": "ties", "parameters": {"kept": ["kth", "count"]}},
        ]
    )
    points = [(space.method, values) for space, values in found.grid()]
    assert points == [
        ("average", {"weight": [1, 1]}),
        ("average", {"weight": [1, 2]}),
        ("average", {"weight": [2, 1]}),
        ("average", {"weight": [2, 2]}),
        ("ties", {"kept": "kth"}),
        ("ties", {"kept": "count"}),
    ]
    average, ties = (found.recipe_at(found.grid()[place]) for place in (1, 5))
    assert [entry.parameters for entry in average.models] == [{"weight": 1}, {"weight": 2}]
    assert (average.method, average.parameters) == ("average", {})  # density is not average's
    assert ties.parameters == {"density": 0.3, "vote": "sum", "kept": "count"}


def test_a_method_without_parameters_is_one_point(search):
    found = search([{"method": "average"}, {"parameters": {"scale": [1, 2]}}])
    points = [(space.method, values) for space, values in found.grid()]
    assert points == [("average", {}), ("ties", {"scale": 1}), ("ties", {"scale": 2})]
    assert found.recipe_at(found.grid()[0]).method == "average"


def test_a_wrong_entry_is_one_problem(search):
    with pytest.raises(UsageError) as caught:
        search([{"method": 3}])
    (problem,) = caught.value.problems
    assert problem.what.startswith("search.0.method: ")


def test_endless_values_have_no_grid(search):
    assert search({"parameters": {"scale": {"low": 0, "high": 1}}}).grid() is None
    assert (
        len(search({"method": "dare_ties", "parameters": {"seed": {"low": 1, "high": 4}}}).grid())
        == 4
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"parameters": {"densty": [0.1]}}, r"no parameter 'densty'\. Did you mean 'density'"),
        ({"method": "tise", "parameters": {"scale": [1]}}, "no merge method 'tise'"),
        ({"parameters": {"density": [0.1, 1.2]}}, r"ties.density: must be in \(0, 1\], got 1.2"),
        ({"parameters": {"density": {"low": 0, "high": 1}}}, r"must be in \(0, 1\], got 0"),
        ({"parameters": {"density": {"low": 0.5, "high": 0.5}}}, "low must be below high"),
        ({"parameters": {"scale": {"low": 0, "high": 1, "step": 0}}}, "step must be above 0"),
        ({"parameters": {"scale": {"low": 0, "high": 1, "log": True}}}, "log needs a low above 0"),
        ({"parameters": {"scale": {"low": 1}}}, "expected a list of values, or low and high"),
        ({"parameters": {"scale": []}}, "expected a list of values, or low and high"),
        ({"parameters": {"scale": {"values": [1], "step": 1}}}, "step and log go with"),
        ({"parameters": {"scale": {"low": "a", "high": 1}}}, "valid"),
        ({"parameters": {"scale": {"low": 0, "hgih": 1}}}, "Did you mean 'high'"),
        ({"parameters": {"kept": ["kth", "kht"]}}, "must be one of .*got 'kht'"),
        ({"parameters": {"vote": {"low": 0, "high": 1}}}, "low and high are for numbers"),
        ({"parameters": {"scale": {"values": [1], "each": True}}}, "one value for all models"),
        ([], "search: .*nothing to try"),
        (
            {"method": "dare_ties", "parameters": {"seed": {"low": 1, "high": 3, "step": 0.5}}},
            r"dare_ties.seed: must be a whole number, got 1\.5",
        ),
        ({"paramters": {"scale": [1]}}, "Did you mean 'parameters'"),
        ([{"parameters": {"scale": [1]}}, {"parameters": {"density": [1]}}], "ties is there twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(search, content, problem):
    with pytest.raises(UsageError, match=problem):
        search(content)


def test_a_parameter_that_a_model_sets_itself_is_not_searched(search, family):
    entry = {"model": str(family / "topics"), "parameters": {"density": 0.5}}
    made = parse_recipe(
        {"method": "ties", "base": "b", "models": [str(family / "sentiment"), entry]}
    )
    with pytest.raises(UsageError, match=r"ties.density: is searched, but models\[1\]"):
        search({"parameters": {"density": [0.1]}}, made)


def test_a_file_of_its_own(recipe, tmp_path):
    path = tmp_path / "space.yml"
    path.write_text("search:\n  parameters: {scale: [1, 2]}\n")
    (space,) = read_spaces(path, recipe())
    assert (space.method, space.parameters["scale"].values) == ("ties", (1, 2))
    path.write_text("parameters: {scale: [1, 2]}\n")
    with pytest.raises(UsageError, match="expected one key, search:"):
        read_spaces(path, recipe())
