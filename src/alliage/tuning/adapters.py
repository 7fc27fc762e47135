"""Which modules LoRA and (IA)3 adapt, and which are trained and saved whole beside them."""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Any

import torch

from alliage.checkpoints.names import KINDS, is_task_head, kind_of, layer_of
from alliage.data.task import GENERATIVE, Kind
from alliage.errors import Problem, UsageError, nearest
from alliage.tuning.recipe import Ia3Settings, TuneRecipe


def add_adapter(model: Any, recipe: TuneRecipe, kind: Kind, fresh: Set[str]) -> Any:
    """Put a recipe's adapter on a model; its own weights stay as they are, `fresh` ones move too.

    Args:
        model: transformers' model.
        recipe: of method lora or ia3.
        kind: of the task.
        fresh: parameters that the base's files lack; where there are none, the head that the base
            brings moves.

    Raises:
        UsageError: targets that name no linear module of the model; all of them.
    """
    from peft import IA3Config, LoraConfig, get_peft_model

    if not fresh:
        fresh = {name for name, _ in model.named_parameters() if is_task_head(name)}
    linear = _linear_modules(model)
    shared = {
        "modules_to_save": fresh_modules(model, fresh) or None,
        "fan_in_fan_out": any(type(module).__name__ == "Conv1D" for module in linear.values()),
        "task_type": _task_type(model, kind),
    }
    if recipe.method == "ia3":
        targets, feedforward = _scaled(recipe.ia3, str(model.config.model_type), linear)
        config: Any = IA3Config(
            target_modules=sorted({*targets, *feedforward}), feedforward_modules=feedforward,
            **shared,
        )  # fmt: skip
    else:
        config = LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            lora_dropout=recipe.lora.dropout,
            use_rslora=recipe.lora.rank_stabilised,
            target_modules=resolve_targets(recipe.lora.targets, linear, "lora.targets"),
            **shared,
        )
    return get_peft_model(model, config)


def _task_type(model: Any, kind: Kind) -> str | None:
    """PEFT's name for a kind of task, where it has one."""
    if kind in GENERATIVE:
        return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    names = {
        "sequence-classification": "SEQ_CLS",
        "regression": "SEQ_CLS",
        "token-classification": "TOKEN_CLS",
    }
    return names.get(kind)


def _scaled(
    settings: Ia3Settings, model_type: str, linear: Collection[str]
) -> tuple[list[str], list[str]]:
    """The ends of the names of modules whose outputs, and of those whose inputs (IA)3 scales.

    PEFT's own choice for the architecture, which is not always the paper's keys, values and the
    last matrix of the feed-forward block (of Qwen: queries and values; of BERT, also the output
    of attention).
    """
    from peft.utils import constants

    known = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(model_type)
    inputs = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(model_type)
    if settings.targets is not None:
        targets = resolve_targets(settings.targets, linear, "ia3.targets")
    elif known is not None:
        targets = [name for name in known if name not in (inputs or ())]
    else:
        kinds = {kind_of(name) for name in linear}
        targets = resolve_targets(
            ("qkv",) if "qkv" in kinds else ("key", "value"), linear, "ia3.targets"
        )
    if settings.feedforward is not None:
        feedforward = resolve_targets(settings.feedforward, linear, "ia3.feedforward")
    else:
        feedforward = list(inputs) if inputs is not None else last_of_mlp(linear)
    return targets, feedforward


def last_of_mlp(modules: Collection[str]) -> list[str]:
    """The last linear module of each layer's feed-forward block, as PEFT finds them.

    Args:
        modules: names of linear modules, in the model's order.
    """
    last: dict[str, str] = {}
    for name in modules:
        if layer_of(name) is not None and kind_of(name) == "mlp":
            last[name.removesuffix(_in_layer(name))] = name
    return sorted(_as_ends(set(last.values()), modules))


def resolve_targets(targets: Collection[str], modules: Collection[str], key: str) -> list[str]:
    """Kinds and names as the ends of module names, or whole ones, by which PEFT finds them.

    Args:
        targets: kinds of modules in the stack ("query"), or ends of module names ("q_proj").
        modules: the names of the model's linear modules.
        key: of the recipe, for messages.

    Raises:
        UsageError: targets that match nothing; all of them.
    """
    ends: set[str] = set()
    problems = []
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in modules):
            ends.add(target)
        elif found := {n for n in modules if layer_of(n) is not None and kind_of(n) == target}:
            ends |= _as_ends(found, modules)
        else:
            known = {kind_of(name) for name in modules} & set(KINDS)
            known |= {name.rpartition(".")[2] for name in modules}
            problems.append(
                Problem(f"{key}: {target}", "matches no module.", nearest(target, known))
            )
    if problems:
        raise UsageError(problems)
    return sorted(ends)


def fresh_modules(model: torch.nn.Module, fresh: Collection[str]) -> list[str]:
    """The largest modules all of whose parameters are fresh."""
    parameters = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for name in fresh:
        parts = name.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            module = ".".join(parts[:depth])
            if all(other in fresh for other in parameters if other.startswith(module + ".")):
                found.add(module)
                break
    return sorted(found)


def _linear_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }


def _as_ends(found: Set[str], modules: Collection[str]) -> set[str]:
    """Names by which PEFT finds these modules and no others: without the layer where that will do.

    The end output.dense of BERT's feed-forward block is that of its attention, too.
    """
    ends: set[str] = set()
    for name in found:
        end = _in_layer(name)
        alone = all(other in found for other in modules if other.endswith(end))
        ends.add(end if alone else name)
    return ends


def _in_layer(name: str) -> str:
    """A module's name inside its layer: "attention.q_proj" of "vit.layers.3.attention.q_proj"."""
    return name.split(f".{layer_of(name)}.", maxsplit=1)[1]
