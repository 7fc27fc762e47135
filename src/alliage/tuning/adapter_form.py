"""What of a tuned model becomes what in a LoRA adapter: names, settings, and what must stay out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.names import is_head, is_task_head, kind_of
from alliage.tuning.peft_modules import PREFIX, Kind, locate_weights
from alliage.vectors import LowRankVector, TaskVector

_NOT_CHOSEN = "not among the modules asked for"


class Target(NamedTuple):
    """A weight that gets factors.

    Attributes:
        parameter: the base's name.
        module: its module in memory.
        kind: what LoRA on it is like.
        kernel: of a convolution; empty otherwise.
    """

    parameter: str
    module: str
    kind: Kind
    kernel: tuple[int, ...]


@dataclass(slots=True)
class AdapterForm:
    """What of a vector becomes what in the adapter.

    Attributes:
        tuned: the tuned checkpoint.
        settings: adapter_config.json but for ranks and modules.
        targets: weights that get factors.
        whole: name in the adapter's file -> tensor of the tuned checkpoint, saved as it is.
        replaced: parameters of the vector that are saved whole.
        left: parameter -> why it is left out.
    """

    tuned: Checkpoint
    settings: dict[str, Any]
    targets: list[Target] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def form_of_model(vector: TaskVector, kinds: tuple[str, ...] | None) -> AdapterForm:
    """A full model's difference: factors for what LoRA holds, heads as they are, the rest named.

    Raises:
        AlliageError: transformers does not know the model.
    """
    places, origin = locate_weights(vector.tuned)
    form = AdapterForm(vector.tuned, {})
    saved = {stored: places[stored].name for stored in vector.heads if stored in places}
    for parameter, shape in vector.shapes.items():
        stored = vector.source(parameter).name
        place = places.get(stored)
        if place is not None and is_task_head(parameter):
            form.replaced.append(parameter)
            saved[stored] = place.name
        elif place is None:
            form.left[parameter] = "transformers holds it in another form"
        elif place.kind is None:
            form.left[parameter] = place.obstacle
        elif kinds is not None and kind_of(parameter) not in kinds:
            form.left[parameter] = _NOT_CHOSEN
        else:
            form.targets.append(Target(parameter, place.module, place.kind, shape[2:]))
    form.whole = {PREFIX + name: stored for stored, name in saved.items()}
    form.settings = {
        "peft_type": "LORA",
        "task_type": None,
        "auto_mapping": origin,
        "base_model_name_or_path": vector.base.location,
        "bias": "none",
        "fan_in_fan_out": any(target.kind == "conv1d" for target in form.targets),
        "inference_mode": True,
        "lora_dropout": 0.0,
        "modules_to_save": sorted({_head_module(name) for name in saved.values()}) or None,
    }
    return form


def form_of_adapter(vector: LowRankVector, kinds: tuple[str, ...] | None) -> AdapterForm:
    """An adapter like the given one, with ranks of its own."""
    adapter = vector.adapter
    assert adapter.adapter is not None
    form = AdapterForm(
        adapter, {**adapter.adapter.raw, "base_model_name_or_path": vector.base.location}
    )
    # What chose its modules and scaled them has done so.
    form.settings |= {"use_rslora": False, "layers_to_transform": None, "layers_pattern": None}
    form.settings |= {"exclude_modules": None, "init_lora_weights": True}
    form.whole = {stored: stored for stored in adapter.adapter_saved.values()}
    form.replaced = list(vector.saved_whole)
    groups = {group.parts["B"]: group for group in adapter.adapter_modules.values()}
    for name in vector.modules:
        parameter = f"{name}.weight"
        stored_B, stored_A = vector.stored(name)
        group = groups[stored_B.name]
        if kinds is not None and kind_of(parameter) not in kinds:
            form.left[parameter] = _NOT_CHOSEN
            continue
        kernel = stored_A.shape[2:]
        kind: Kind = "embedding" if group.embedding else "convolution" if kernel else "linear"
        form.targets.append(Target(parameter, group.module, kind, kernel))
    return form


def _head_module(name: str) -> str:
    """The largest module of a head that a tensor belongs to: "classifier" of its dense.weight."""
    parts = name.split(".")
    tops = (".".join(parts[:depth]) for depth in range(1, len(parts)))
    return next((top for top in tops if is_head(top)), name.rpartition(".")[0])


def rank_settings(ranks: Mapping[str, int]) -> dict[str, Any]:
    """The part of adapter_config.json that says ranks and modules; α = r makes the scale 1."""
    largest = max(ranks.values())
    # PEFT takes the first name that is an end of the module's: longer ones go first.
    ordered = sorted(ranks, key=lambda module: (-len(module), module))
    pattern = {m: ranks[m] for m in ordered} if len(set(ranks.values())) > 1 else {}
    return {
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
    }


def peft_tensors(target: Target, B: Tensor, A: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The two factors by PEFT's names, in PEFT's shapes."""
    name = PREFIX + target.module
    if target.kind == "embedding":
        yield f"{name}.lora_embedding_A", A
        yield f"{name}.lora_embedding_B", B
        return
    yield f"{name}.lora_A.weight", A.reshape(len(A), -1, *target.kernel)
    yield f"{name}.lora_B.weight", B.reshape(*B.shape, *(1 for _ in target.kernel))
