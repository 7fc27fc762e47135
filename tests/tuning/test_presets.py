"""What the documents say, read from them by hand."""

from __future__ import annotations

import pytest

from alliage.errors import UsageError
from alliage.tuning import PRESETS, TuneRecipe, parse_recipe

INPUTS = {"model": "base", "task": "t"}


def settled(**settings):
    return parse_recipe(INPUTS | settings).settled()


@pytest.mark.parametrize(
    ("preset", "method", "expected"),
    [
        ("fosse-2024", "full", {"learning_rate": 2e-5, "batch_size": 20, "epochs": 20}),
        ("fosse-2024", "full", {"patience": 5, "eval_rhythm": "epoch"}),
        ("fosse-2024", "lora", {"learning_rate": 1e-4, "epochs": 20, "patience": 5}),
        ("cui-2024", "full", {"epochs": 3, "patience": None}),
        ("yadav-2023", "full", {"batch_size": 1024, "learning_rate": 1e-4, "max_steps": 75_000}),
        ("yadav-2023", "full", {"patience": 5, "precision": "bfloat16", "max_length": 128}),
        ("yadav-2023", "ia3", {"batch_size": 16, "eval_batch_size": 32, "learning_rate": 1e-4}),
        ("yadav-2023", "ia3", {"patience": 10, "weight_decay": 0.0, "precision": "float32"}),
    ],
)
def test_settings_are_the_documents(preset, method, expected):
    recipe = settled(preset=preset, method=method)
    assert {key: getattr(recipe, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("preset", "alpha", "dropout"), [("fosse-2024", 16, 0), ("cui-2024", 32, 0.1)]
)
def test_lora_is_the_documents(preset, alpha, dropout):
    lora = settled(preset=preset, method="lora").lora
    assert (lora.rank, lora.alpha, lora.dropout) == (8, alpha, dropout)
    assert lora.targets == ("query", "value")


def test_a_recipes_own_keys_win_also_inside_lora():
    recipe = settled(preset="cui-2024", method="lora", epochs=1, lora={"rank": 2})
    assert (recipe.epochs, recipe.lora.rank, recipe.lora.alpha) == (1, 2, 32)


def test_own_epochs_stand_for_the_presets_steps_and_own_batches_for_its_parts():
    recipe = settled(preset="yadav-2023", epochs=2, batch_size=10)
    assert (recipe.epochs, recipe.max_steps) == (2, None)
    assert (recipe.batch_size, recipe.gradient_accumulation) == (10, 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_recipe_for_each_of_its_methods(preset):
    for method in PRESETS[preset].methods:
        recipe = settled(preset=preset, method=method)
        assert recipe.settled() == recipe
        assert TuneRecipe.model_validate(recipe.model_dump(exclude_unset=True)) == recipe


@pytest.mark.parametrize("preset", PRESETS)
def test_batches_are_random_as_in_the_studies_unless_asked_for(preset):
    assert not settled(preset=preset).group_by_length
    assert settled(preset=preset, group_by_length=True).group_by_length


def test_where_three_epochs_stand_and_what_fosse_holds_out_are_said():
    assert "table 4.9" in PRESETS["cui-2024"].source
    assert "validation: hold-out" in PRESETS["fosse-2024"].source


def test_noam_takes_the_place_of_the_presets_learning_rate():
    recipe = settled(preset="yadav-2023", schedule={"name": "noam", "warmup_steps": 10})
    assert recipe.learning_rate is None
    assert (recipe.schedule.name, recipe.max_steps) == ("noam", 75_000)
    with pytest.raises(UsageError, match="noam decides learning_rate"):
        settled(preset="yadav-2023", schedule={"name": "noam"}, learning_rate=1e-3)


def test_a_method_that_a_study_did_not_use_is_refused():
    with pytest.raises(UsageError, match="fosse-2024 has no settings for method ia3"):
        settled(preset="fosse-2024", method="ia3")
