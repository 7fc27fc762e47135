import pytest

from alliage.errors import UsageError
from alliage.merging import load_recipe, parse_recipe
from alliage.merging.recipe.files import split_lora
from alliage.merging.recipe.schema import MergeRecipe

NAME = "model.layers.3.mlp.up_proj.weight"


def messages(content) -> str:
    with pytest.raises(UsageError) as caught:
        parse_recipe(content).settings()
    return str(caught.value)


GRADED = {"weight": [{"filter": "mlp", "value": [0, 1, "x"]}]}


def part(model: str, start: int, stop: int, **parameters):
    return {"model": model, "layers": [start, stop], "parameters": parameters}


def test_parameters_for_all_and_for_one():
    method, arguments = parse_recipe(
        {
            "method": "ties",
            "base": "b",
            "models": ["x", {"model": "y", "parameters": {"weight": 0.5}}],
            "parameters": {"weight": 2, "density": 0.3},
        }
    ).settings()
    assert method.name == "ties"
    assert arguments["weight"] == [2, 0.5]
    assert arguments["density"] == [0.3, 0.3]
    assert arguments["scale"] == 1.0
    assert arguments.keys() == method.parameters.keys()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"method": "tise", "models": ["a"]}, "Did you mean 'ties'"),
        ({"metod": "ties", "models": ["a"]}, "unknown key metod. Did you mean 'method'"),
        ({"method": "ties"}, "models: Field required"),
        ({"method": "ties", "models": []}, "models: Field required, or slices instead"),
        (
            {"method": "ties", "models": ["a"], "slices": [{"models": [part("a", 0, 1)]}]},
            "give models or slices, not both",
        ),
        ({"method": "ties", "slices": []}, "models: Field required, or slices instead"),
        ({"method": "ties", "slices": [{"models": []}]}, "slices.0.models: Tuple should have"),
        (
            {"method": "ties", "slices": [{"models": [part("a", 2, 2)]}]},
            "slices.0.models.0.layers: expected [start, stop] with 0 <= start < stop",
        ),
        ({"method": "ties", "slices": [{"models": [part("a", -1, 2)]}]}, "0 <= start < stop"),
        (
            {"method": "ties", "slices": [{"models": [part("a", 0, 2), part("b", 0, 3)]}]},
            "all models of a slice give equally many layers, found {2, 3}",
        ),
        (
            {"method": "ties", "slices": [{"models": [part("a", 0, 2), part("b", 1, 3)]}]},
            "slices[0]: its models give different layers",
        ),
        (
            {"method": "ties", "slices": [{"models": [{**part("a", 0, 2), "layer": 1}]}]},
            "unknown key slices.0.models.0.layer. Did you mean 'layers'?",
        ),
        (
            {"method": "ties", "models": ["a"], "tokenizer": "b"},
            "tokenizer: 'b' is none of the recipe's models. Known: 'a', 'base'.",
        ),
        ({"method": "ties", "models": ["a"], "dialect": "mergkit"}, "dialect: Input should be"),
        (
            {"method": "ties", "models": ["a", {"model": "b", "parameters": GRADED}]},
            "models[1].parameters.weight[0].value[2]: must be a finite number, got 'x'.",
        ),
        (
            {"method": "ties", "slices": [{"models": [part("a", 0, 2, densty=1)]}]},
            "slices[0].models[0].parameters: ties has no parameter 'densty'. Did you",
        ),
        ({"method": "ties", "models": "a"}, "models: Input should be a valid tuple"),
        ({"method": "ties", "models": [{"modle": "a"}]}, "models.0.modle. Did you mean 'model'?"),
        ({"method": "ties", "models": ["a"], "dtype": "int8"}, "dtype: Input should be 'float32'"),
        (
            {"method": "ties", "models": ["a"], "parameters": {"densty": 1}},
            "Did you mean 'density'?",
        ),
        (
            {"method": "ties", "models": ["a"], "parameters": {"density": 0}},
            "must be in (0, 1], got 0",
        ),
        (
            {"method": "ties", "models": ["a"], "parameters": {"density": "x"}},
            "finite number, got 'x'",
        ),
        (
            {"method": "ties", "models": ["a"], "parameters": {"weight": True}},
            "finite number, got True",
        ),
        (
            {"method": "average", "models": ["a"], "parameters": {"weight": 0}},
            "all weights are zero",
        ),
        (
            {"method": "ties", "models": [{"model": "a", "parameters": {"scale": 0.1}}]},
            "scale is one value for all models",
        ),
        (["method"], "expected keys and values, found list"),
    ],
)
def test_wrong_recipes_say_what_to_do(content, expected):
    assert expected in messages(content)


def test_all_problems_at_once():
    found = messages({"metod": "x", "bse": "y", "models": [{"modle": "a"}]})
    for part in ("metod", "bse", "models.0.modle", "method: Field required", "models.0.model"):
        assert part in found


def test_parameters_by_depth_and_by_name():
    recipe = parse_recipe(
        {
            "method": "task_arithmetic",
            "models": [
                {"model": "x", "parameters": {"weight": [0, 1]}},
                {"model": "y", "parameters": {"weight": [{"filter": "mlp", "value": 3}]}},
                "z",
            ],
            "parameters": {"weight": 0.5, "scale": [{"filter": "attn", "value": 0.1}]},
        }
    )
    assert recipe.varies()
    assert recipe.settings()[1] == {}
    default = recipe.settings()[0].parameters["scale"].default
    assert recipe.arguments_for(NAME, 0.25) == {"weight": [0.25, 3, 0.5], "scale": default}
    attention = NAME.replace("mlp", "attn")
    assert recipe.arguments_for(attention, 1.0) == {"weight": [1, 0.5, 0.5], "scale": 0.1}


def test_a_rule_that_does_not_speak_of_a_tensor_leaves_it_to_the_next_place():
    only_mlp = [{"filter": "mlp", "value": 3}]
    recipe = parse_recipe(
        {
            "method": "task_arithmetic",
            "slices": [
                {
                    "models": [part("x", 0, 4, weight=only_mlp)],
                    "parameters": {"weight": [{"filter": "attn", "value": 2}]},
                }
            ],
            "parameters": {"weight": [{"filter": "norm", "value": 5}]},
        }
    )
    found = {
        kind: recipe.arguments_for(f"layers.0.{kind}.weight", 0, slice_index=0)["weight"]
        for kind in ("mlp", "attn", "norm", "conv")
    }
    assert found == {"mlp": [3], "attn": [2], "norm": [5], "conv": [1.0]}


def test_settings_keeps_what_no_tensor_changes():
    recipe = parse_recipe(
        {"method": "task_arithmetic", "models": ["x"], "parameters": {"scale": [0, 1]}}
    )
    assert recipe.settings()[1] == {"weight": [1.0]}
    same = parse_recipe({"method": "task_arithmetic", "models": ["x"], "parameters": {"scale": 2}})
    assert not same.varies()
    assert same.arguments_for(NAME, 0.5) == same.settings()[1] == {"weight": [1.0], "scale": 2}


@pytest.mark.parametrize("seed", [1.0, [1.0], [{"filter": "a", "value": 1.0}, {"value": 1}]])
def test_a_whole_number_may_be_written_with_a_point(seed):
    content = {"method": "dare_linear", "base": "base", "models": ["a"]}
    recipe = parse_recipe({**content, "parameters": {"seed": seed}})
    found = recipe.arguments_for("a", 0.5)["seed"]
    assert (found, type(found)) == (1, int)
    if not isinstance(seed, list):
        assert type(recipe.settings()[1]["seed"]) is int
    with pytest.raises(UsageError, match="too large a number"):
        parse_recipe({**content, "parameters": {"seed": 1e30}}).settings()


def test_slices_have_their_own_models_and_parameters():
    recipe = parse_recipe(
        {
            "method": "average",
            "slices": [
                {"models": [part("x", 0, 4)]},
                {"models": [part("y", 2, 6, weight=3), part("x", 4, 8)]},
            ],
            "parameters": {"weight": 2},
        }
    )
    assert recipe.refs == ("x", "y")
    assert [part.length for part in recipe.slices] == [4, 4]
    assert recipe.varies()
    assert recipe.arguments_for(NAME, 0, slice_index=0)["weight"] == [2]
    assert recipe.arguments_for(NAME, 0, slice_index=1)["weight"] == [3, 2]
    with pytest.raises(ValueError, match="slice_index"):
        recipe.arguments_for(NAME, 0)


def test_filters_of_a_models_values_are_sought_in_its_own_names():
    by_layer = [{"filter": "layers.3.", "value": 7}]
    recipe = parse_recipe(
        {
            "method": "average",
            "slices": [{"models": [part("x", 3, 4, weight=by_layer), part("y", 0, 1)]}],
        }
    )
    names = ("layers.3.mlp.weight", "layers.0.mlp.weight")
    found = recipe.arguments_for("layers.0.mlp.weight", 0, slice_index=0, sources=names)
    assert found["weight"] == [7, 1.0]


def test_every_problem_of_the_parameters_at_once():
    found = messages(
        {
            "method": "ties",
            "models": [{"model": "a", "parameters": {"weight": [1, "x"], "wieght": 1}}],
            "parameters": {"density": [0, 2], "scael": 1},
            "tokenizer": "nobody's",
        }
    )
    for where in ("weight[1]", "'wieght'", "density[0]", "density[1]", "'scael'", "tokenizer"):
        assert where in found


def test_the_schema_for_editors_names_every_key():
    schema = MergeRecipe.model_json_schema()
    assert schema["properties"].keys() == MergeRecipe.model_fields.keys()
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["method"]
    assert {"required": ["slices"]} in schema["oneOf"]
    entry = schema["properties"]["models"]["items"]["anyOf"]
    assert {"type": "string"} in entry
    value = schema["$defs"]["ModelEntry"]["properties"]["parameters"]["additionalProperties"]
    assert {"type": ["boolean", "number", "string"]} in value["anyOf"]


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("org/model", ("org/model", None)),
        ("org/model@v1", ("org/model@v1", None)),
        ("org/model@v1+org/lora@main", ("org/model@v1", "org/lora@main")),
        ("c++", ("c++", None)),
        ("c++/model", ("c++/model", None)),
        ("c++/model+lora", ("c++/model", "lora")),
        ("c++/model+elsewhere/lora", ("c++/model", "elsewhere/lora")),
        ("org/model+c++/lora", ("org/model", "c++/lora")),
        ("s3://bucket/a+b", ("s3://bucket/a+b", None)),
        ("s3://bucket/a+b+gs://bucket/lora", ("s3://bucket/a+b", "gs://bucket/lora")),
        ("s3://bucket/model+lora", ("s3://bucket/model", "lora")),
        ("org/model+s3://bucket/lora", ("org/model", "s3://bucket/lora")),
    ],
)
def test_a_model_with_its_adapter(tmp_path, monkeypatch, ref, expected):
    for folder in ("c++/model", "c++/lora", "lora"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert split_lora(ref) == expected


def test_a_reference_that_may_be_divided_in_two_ways_is_refused():
    with pytest.raises(UsageError, match="more than one"):
        split_lora("org/a+b+c")


def test_adapters_and_slices_count_from_the_recipes_folder_too(tmp_path):
    for name in ("base", "lora", "donor+1"):
        (tmp_path / name).mkdir()
    path = tmp_path / "merge.yml"
    path.write_text(
        "method: average\nslices:\n- models:\n  - {model: base+lora, layers: [0, 2]}\n"
        "  - {model: donor+1, layers: [0, 2]}\ntokenizer: donor+1\n"
    )
    recipe = load_recipe(path)
    assert recipe.refs == (f"{tmp_path}/base+{tmp_path}/lora", f"{tmp_path}/donor+1")
    assert recipe.tokenizer == f"{tmp_path}/donor+1"
    recipe.settings()


def test_paths_count_from_the_recipes_folder(tmp_path):
    (tmp_path / "base").mkdir()
    path = tmp_path / "merge.yml"
    path.write_text("method: ties\nbase: base\nmodels: [org/elsewhere]\n")
    recipe = load_recipe(path)
    assert recipe.base == str(tmp_path / "base")
    assert recipe.models[0].model == "org/elsewhere"


@pytest.mark.parametrize(
    "text",
    [
        "method: [",
        "!!python/object/apply:os.system ['true']",
        "[" * 5000,
        "\0",
    ],
)
def test_yaml_that_is_none(tmp_path, text):
    path = tmp_path / "merge.yml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"merge\.yml"):
        load_recipe(path)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(tmp_path / "none.yml")
