import pytest

from alliage.errors import UsageError
from alliage.merging import load_recipe, parse_recipe


def messages(content) -> str:
    with pytest.raises(UsageError) as caught:
        parse_recipe(content).settings()
    return str(caught.value)


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
    assert arguments == {"weight": [2, 0.5], "density": 0.3, "scale": 1.0}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"method": "tise", "models": ["a"]}, "Did you mean 'ties'?"),
        ({"metod": "ties", "models": ["a"]}, "unknown key metod. Did you mean 'method'"),
        ({"method": "ties"}, "models: Field required"),
        ({"method": "ties", "models": []}, "models: Tuple should have at least 1 item"),
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
            {"method": "ties", "models": [{"model": "a", "parameters": {"density": 0.1}}]},
            "density is one value for all models",
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
