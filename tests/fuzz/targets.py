"""Every kind of hostile input."""

from __future__ import annotations

from tests.fuzz import (
    checkpoint_files,
    pickle_files,
    recipe_files,
    record_files,
    settings_files,
)
from tests.fuzz.verdict import Target

TARGETS = {
    target.name: target
    for target in (
        Target(
            "safetensors", checkpoint_files.make_safetensors, checkpoint_files.check_safetensors
        ),
        Target("index", checkpoint_files.make_index, checkpoint_files.check_index),
        Target("odd files", checkpoint_files.make_odd, checkpoint_files.check_odd),
        Target("config", settings_files.make_config, settings_files.check_settings),
        Target("adapter", settings_files.make_adapter, settings_files.check_settings),
        Target("pruning", settings_files.make_stack, settings_files.check_stack),
        Target("record", record_files.make_record, record_files.check_record),
        Target("recipe", recipe_files.make_recipe, recipe_files.check_recipe),
        Target("pickle", pickle_files.make_pickle, pickle_files.check_pickle),
    )
}
