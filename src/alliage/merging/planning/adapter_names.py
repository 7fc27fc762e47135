"""Names and settings of a merged adapter: as the first of the given ones says them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from alliage.vectors import LowRankVector, ScalingVector

_PREFIX = "base_model.model."
_ENDINGS = (
    ".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B", ".ia3_l",
)  # fmt: skip


def in_memory(stored: str) -> str:
    """The module that a tensor of an adapter's file belongs to, as PEFT sees it."""
    bare = stored.removeprefix(_PREFIX)
    ending = next((each for each in _ENDINGS if bare.endswith(each)), "")
    return bare.removesuffix(ending)


def prefixes(
    adapters: Sequence[LowRankVector | ScalingVector], stored: Callable[[Any, str], str]
) -> dict[str, tuple[str, str]]:
    """How each adapter's names begin, and how they do in the output: as the first one's.

    The adapter of a bare encoder says "encoder.layer.0…", that of the encoder under a task head
    "bert.encoder.layer.0…". One model gets one of the two.

    Args:
        adapters: with the `modules` that they adapt.
        stored: an adapter's name of a tensor of one of its modules.

    Returns:
        adapter's name -> for `output_name`.
    """
    first, *others = adapters
    found = {first.name: ("", "")}
    for vector in others:
        common = next((module for module in first.modules if module in vector.modules), None)
        ours = stored(first, common or first.modules[0])
        theirs = stored(vector, common or vector.modules[0])
        if common is None:
            pair = _before(theirs, vector.modules[0]), _before(ours, first.modules[0])
            found[vector.name] = pair
            continue
        end = 0
        while end < min(len(ours), len(theirs)) and ours[-end - 1] == theirs[-end - 1]:
            end += 1
        found[vector.name] = theirs[: len(theirs) - end], ours[: len(ours) - end]
    return found


def output_name(stored: str, prefix: tuple[str, str]) -> str:
    """A tensor's name in the output."""
    theirs, ours = prefix
    return ours + stored.removeprefix(theirs)


def merged_settings(
    adapters: Sequence[LowRankVector | ScalingVector],
    base: str,
    choice: Mapping[str, Any],
    **own: Any,
) -> dict[str, Any]:
    """adapter_config.json of a merged adapter: the first one's, but for what is its own.

    Args:
        adapters: the merged ones.
        base: where their base is.
        choice: the settings that choose its modules, where the adapters do not all choose alike.
        own: further settings of its own.
    """
    settings = [vector.adapter.adapter.raw for vector in adapters if vector.adapter.adapter]
    made = {**settings[0], **own}
    if not _one_choice(settings, choice):
        made |= choice
    # The heads stay apart; PEFT expects one in an adapter that names its type of task.
    made |= {"modules_to_save": None, "task_type": None}
    return made | {"base_model_name_or_path": base}


def _one_choice(settings: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> bool:
    """Whether several adapters' settings choose modules alike; PEFT saves sets in any order."""
    first, *others = ([_ordered(each.get(key)) for key in keys] for each in settings)
    return all(each == first for each in others)


def _ordered(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, list) else value


def _before(stored: str, module: str) -> str:
    """What stands before the base's name of a module in an adapter's file; nothing if it is not."""
    head, found, _ = stored.partition(module)
    return head if found else ""
