"""From the module names that PEFT saw in memory to the tensor names in the base's files."""

from __future__ import annotations

from collections.abc import Collection

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.names import align
from alliage.errors import Problem, nearest
from alliage.vectors.in_memory import empty_model, names_in_memory


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
        renamed = _memory_names(base)
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


def _memory_names(base: Checkpoint) -> dict[str, str]:
    """Parameter names in transformers' model -> names in the base's files."""
    if base.config is None or "model_type" not in base.config:
        return {}
    try:
        model = empty_model(base.config)
    except (ValueError, ImportError):  # names match as they are or not at all
        return {}
    return {memory: name for name, memory in names_in_memory(model, base.specs()).items()}
