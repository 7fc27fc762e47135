"""What goes with merged weights: settings, provenance, the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alliage.checkpoints import provenance
from alliage.checkpoints.card import model_card
from alliage.checkpoints.reference import ADAPTER_CONFIG, CONFIG
from alliage.checkpoints.writer import OutputFolder
from alliage.merging.engine.factors import lora_settings
from alliage.merging.engine.heads import head_settings, merged_head
from alliage.merging.engine.passes import OnEvent
from alliage.merging.engine.progress import plug_in_versions
from alliage.merging.engine.scales import scaling_settings
from alliage.merging.planning.layer_settings import restacked
from alliage.merging.planning.plan import Plan
from alliage.vectors import TaskVector


def write_settings(plan: Plan, folder: OutputFolder) -> None:
    """config.json of the base with the output's type; an adapter's own settings for factors."""
    assert plan.base is not None
    if plan.makes_adapter:
        settings = lora_settings if plan.method.unit == "factors" else scaling_settings
        folder.add_json(ADAPTER_CONFIG, settings(plan))
        return
    if plan.base.config is None:
        return
    config = dict(plan.base.config)
    if plan.recipe.dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = plan.recipe.dtype
    if plan.layer_sources is not None:
        sources = [(donor.config or {}, layer) for donor, layer in plan.layer_sources]
        config = restacked(config, sources)
    head = merged_head(plan)
    if head is not None:
        config |= head_settings(plan.vectors[0].checkpoints[0], config, head)
    folder.add_json(CONFIG, config)


def write_provenance(plan: Plan, folder: OutputFolder, notify: OnEvent) -> None:
    """alliage.json and the model card."""
    head = merged_head(plan) or {}
    facts = {key: head[key] for key in ("task", "kind", "labels") if head.get(key)}
    record: dict[str, Any] = provenance.describe(
        "merge", _recipe(plan), _inputs(plan, notify), folder.staging,
        packages=plug_in_versions(plan), method=plan.method.name, **facts,
    )  # fmt: skip
    folder.add_json(provenance.FILE, record)
    names = ", ".join(f"`{vector.name}`" for vector in plan.vectors)
    summary = f"A merge of {names} by `{plan.method.name}` ({plan.method.paper})." + (
        f" {plan.method.departures}" if plan.method.departures else ""
    )
    folder.add_text("README.md", model_card(folder.out.name, summary, record))


def is_complete(plan: Plan, out: Path) -> bool:
    """Whether `out` is what the plan makes, by its alliage.json: the same recipe and inputs."""
    record = provenance.read(out) if out.is_dir() else None
    if record is None or record.get("recipe") != json.loads(json.dumps(_recipe(plan))):
        return False
    return record.get("inputs") == _inputs(plan, lambda *_: None)


def _recipe(plan: Plan) -> dict[str, Any]:
    """The recipe with names and defaults filled in, where they are the same for every tensor."""
    recipe = plan.recipe.model_dump(mode="json", exclude_none=True)
    shared: dict[str, Any] = {}
    of_models: dict[str, Any] = {}
    for key, value in plan.arguments.items():
        (of_models if plan.method.parameters[key].per_model else shared)[key] = value
    recipe["parameters"] = recipe["parameters"] | shared
    if not plan.recipe.slices:
        for place, (entry, vector) in enumerate(zip(recipe["models"], plan.vectors, strict=True)):
            entry["name"] = vector.name
            own = {key: values[place] for key, values in of_models.items()}
            entry["parameters"] = entry["parameters"] | own
    return recipe


def _inputs(plan: Plan, notify: OnEvent) -> list[dict[str, Any]]:
    """Every input with its digests."""
    assert plan.base is not None
    adapted = any(not isinstance(vector, TaskVector) for vector in plan.vectors)
    sources = [("base", plan.base)] if plan.recipe.base is not None or adapted else []
    for vector in plan.vectors:
        sources += [(vector.name, checkpoint) for checkpoint in vector.checkpoints]
    for vector, statistics in zip(plan.vectors, plan.statistics, strict=False):  # or there are none
        sources.append((f"statistics of {vector.name}", statistics.file))
    sources += [("signs", plan.signs)] if plan.signs is not None else []
    for _, checkpoint in sources:
        checkpoint.check_unchanged()
    described = []
    for done, (role, checkpoint) in enumerate(sources, start=1):
        described.append(provenance.describe_input(role, checkpoint))
        notify("hashing inputs", done, len(sources))
    return described
