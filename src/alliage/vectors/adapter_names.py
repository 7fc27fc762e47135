"""From the module names that PEFT saw in memory to the tensor names in the base's files."""

from __future__ import annotations

from collections.abc import Collection

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.names import align
from alliage.errors import Problem, nearest


def base_names(
    base: Checkpoint,
    adapter: Checkpoint,
    names: Collection[str],
    problems: list[Problem],
    optional: Collection[str] = (),
) -> dict[str, str]:
    """The base's tensor for each tensor name of the adapted model; misfits go to `problems`.

    Of the `optional` names, those that the base lacks are left out without a word.

    Names match up to a leading prefix. Where they do not, transformers' own renaming between files
    and memory is asked (ViT's files say `encoder.layer.0.attention.attention.query`, its modules
    `layers.0.attention.q_proj`).
    """
    found = align([*names, *optional], base.specs())
    if found.missing:
        renamed = _names_in_memory(base)
        again = align(found.missing, renamed)
        found.pairs.update({name: renamed[memory] for name, memory in again.pairs.items()})
        problems += [
            Problem(
                f"{adapter.ref}: {name.removesuffix('.weight')}",
                f"is adapted, but the base ({base.ref}) has no such module.",
                f"The adapter belongs to another base? {nearest(name, base.specs())}",
            )
            for name in again.missing
            if name not in optional
        ]
    return found.pairs


def _names_in_memory(base: Checkpoint) -> dict[str, str]:
    """Parameter names in transformers' model -> names in the base's files; no weight is loaded."""
    if base.config is None or "model_type" not in base.config:
        return {}
    try:
        import torch
        import transformers
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key
    except ImportError:  # without transformers, names match as they are or not at all
        return {}
    try:
        config = transformers.AutoConfig.for_model(**base.config)
        own = getattr(transformers, str((base.config.get("architectures") or [None])[0]), None)
        with torch.device("meta"):  # the model's own class, for its head is renamed too
            model = own(config) if own else transformers.AutoModel.from_config(config)
    except (ValueError, KeyError, TypeError, AttributeError):  # an architecture of its own
        return {}
    rules = [
        rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)
    ]
    return {rename_source_key(name, rules, [])[0]: name for name in base.specs()}
