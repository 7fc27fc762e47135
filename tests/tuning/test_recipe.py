from __future__ import annotations

import pytest

from alliage.errors import UsageError
from alliage.tuning import load_recipe, parse_recipe


def test_relative_paths_count_from_the_recipe(tmp_path):
    (tmp_path / "base").mkdir()
    path = tmp_path / "tune.yml"
    path.write_text("model: base\ntask: digits:loop\n")
    recipe = load_recipe(path)
    assert recipe.model == str(tmp_path / "base")
    assert recipe.task == "digits:loop"
    path.write_text("model: org/name@main\ntask: digits:loop\n")
    assert load_recipe(path).model == "org/name@main"


def test_every_mistake_is_named_with_the_nearest_key():
    content = {
        "model": "base",
        "learning_rte": 1,
        "epochs": 0,
        "method": "lora",
        "lora": {"rnk": 4, "dropout": 1},
    }
    with pytest.raises(UsageError) as caught:
        parse_recipe(content, where="tune.yml")
    messages = "\n".join(map(str, caught.value.problems))
    assert "tune.yml: unknown key learning_rte. Did you mean 'learning_rate'" in messages
    assert "tune.yml: unknown key lora.rnk. Did you mean 'rank'?" in messages
    assert "tune.yml: task: Field required." in messages
    assert "epochs: Input should be greater than 0. Got 0." in messages
    assert "lora.dropout: Input should be less than 1" in messages
    assert len(caught.value.problems) == 5


def test_lora_settings_need_the_method_that_uses_them():
    with pytest.raises(UsageError, match="lora is set, but method is full"):
        parse_recipe({"model": "base", "task": "t", "lora": {"rank": 4}})


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_neurons_are_spread_in_full_tuning_only(method):
    content = {"model": "base", "task": "t", "hyperspherical_energy": {"coefficient": 0.1}}
    assert parse_recipe(content).method == "full"
    with pytest.raises(UsageError, match=f"goes with method: full, not {method}"):
        parse_recipe(content | {"method": method})


def test_the_learning_rate_depends_on_the_method():
    content = {"model": "base", "task": "t"}
    assert parse_recipe(content).peak_learning_rate == 2e-5
    assert parse_recipe(content | {"method": "lora"}).peak_learning_rate == 1e-4
    assert parse_recipe(content | {"learning_rate": 0.5}).peak_learning_rate == 0.5
