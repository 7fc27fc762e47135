"""What goes with merged weights: settings, provenance, the model card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints.card import model_card
from alliage.checkpoints.reference import ADAPTER_CONFIG, CONFIG
from alliage.checkpoints.writer import OutputFolder
from alliage.merging.plan import Plan
from alliage.vectors import LowRankVector, TaskVector

_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def write_settings(plan: Plan, folder: OutputFolder) -> None:
    """config.json of the base with the output's type; an adapter's own settings for factors."""
    assert plan.base is not None
    if plan.method.unit == "factors":
        first = plan.vectors[0]
        assert isinstance(first, LowRankVector)
        assert first.adapter.adapter is not None
        settings = dict(first.adapter.adapter.raw)
        # The heads stay apart; PEFT expects one in an adapter that names its type of task.
        apart = {"modules_to_save": None, "task_type": None}
        settings |= {"base_model_name_or_path": plan.base.location, **apart}
        folder.add_json(ADAPTER_CONFIG, settings)
        return
    if plan.base.config is None:
        return
    config = dict(plan.base.config)
    if plan.recipe.dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = plan.recipe.dtype
    if plan.layer_sources is not None:
        config = _restacked(config, plan.layer_sources)
    folder.add_json(CONFIG, config)


def write_provenance(
    plan: Plan, folder: OutputFolder, notify: Callable[[str, int, int], None]
) -> None:
    """alliage.json and the model card."""
    assert plan.base is not None
    recipe = plan.recipe.model_dump(mode="json", exclude_none=True)
    if not plan.recipe.slices:
        for entry, vector in zip(recipe["models"], plan.vectors, strict=True):
            entry["name"] = vector.name
    recipe["parameters"] = recipe["parameters"] | {
        key: value
        for key, value in plan.arguments.items()
        if not plan.method.parameters[key].per_model
    }
    if not plan.recipe.slices:
        for position, entry in enumerate(recipe["models"]):
            entry["parameters"] = entry["parameters"] | {
                key: value[position]
                for key, value in plan.arguments.items()
                if plan.method.parameters[key].per_model
            }
    adapted = any(not isinstance(vector, TaskVector) for vector in plan.vectors)
    sources = [("base", plan.base)] if plan.recipe.base is not None or adapted else []
    for vector in plan.vectors:
        sources += [(vector.name, checkpoint) for checkpoint in vector.checkpoints]
    for _, checkpoint in sources:
        checkpoint.check_unchanged()
    described = []
    for done, (role, checkpoint) in enumerate(sources, start=1):
        described.append(provenance.describe_input(role, checkpoint))
        notify("hashing inputs", done, len(sources))
    record: dict[str, Any] = provenance.describe(
        "merge", recipe, described, folder.staging, method=plan.method.name
    )
    folder.add_json(provenance.FILE, record)
    names = ", ".join(f"`{vector.name}`" for vector in plan.vectors)
    summary = f"A merge of {names} by `{plan.method.name}` ({plan.method.paper})." + (
        f" {plan.method.departures}" if plan.method.departures else ""
    )
    folder.add_text("README.md", model_card(folder.out.name, summary, record))


def _restacked(
    config: dict[str, Any], layers: tuple[tuple[Checkpoint, int], ...]
) -> dict[str, Any]:
    """The settings of a stack of other layers: their number, and lists with a value for each."""
    counts = [key for key in _LAYER_COUNTS if isinstance(config.get(key), int)]
    before = config[counts[0]] if counts else None
    for key in counts:
        config[key] = len(layers)
    for key, value in config.items():
        if not isinstance(value, list) or len(value) != before:
            continue
        given = [((donor.config or {}).get(key) or value, layer) for donor, layer in layers]
        if all(layer < len(values) for values, layer in given):
            config[key] = [values[layer] for values, layer in given]
    return config
