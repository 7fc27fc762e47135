"""Methods inside methods: one that brings models into a common space names the rule that merges.

    rule: ties      any method of blocks or tensors
    density: 0.3    its own parameters, beside it

What the rule merges is one vector for each module, so it has no choice of `trim`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from alliage.merging.registry import Method, Parameter, Scope, describe

if TYPE_CHECKING:
    from torch import Tensor

Draws = Callable[[int, int], "Tensor"]  # (model, how many) -> numbers in [0, 1)

_PARAMETER = "rule"


def ruled(method: Method, given: Mapping[str, Any]) -> Method:
    """A method with the parameters of the rule that `given` names, or of its default one.

    Methods without a rule, and rules that are none, leave it as it is.
    """
    declared = method.parameters.get(_PARAMETER)
    if declared is None or not declared.rule:
        return method
    name = given.get(_PARAMETER, declared.default)
    if not isinstance(name, str) or declared.check(name):
        return method
    rule = describe(name)
    more = {
        key: parameter
        for key, parameter in rule.parameters.items()
        if key not in method.parameters and not _is_scope(parameter)
    }
    return replace(
        method,
        parameters={**method.parameters, **more},
        random=rule.random,
        models=rule.models,
    )


def by_rule(
    rule: str, tensors: Tensor, parameters: Mapping[str, Any], draws: Draws | None
) -> Tensor:
    """Merge tensors [n, *shape] by a method, as whole vectors.

    Args:
        rule: the method's name.
        tensors: float32.
        parameters: of the rule.
        draws: for a rule that is random; without them it draws by its own seed.
    """
    import torch

    method = describe(rule)
    given = dict(parameters)
    if method.random and draws is not None:
        numel = tensors[0].numel()
        rows = [draws(model, numel).reshape(tensors.shape[1:]) for model in range(len(tensors))]
        given["uniform"] = torch.stack(rows).to(tensors.device)
    merged: Tensor = method.function(tensors, **given)
    return merged


def _is_scope(parameter: Parameter) -> bool:
    return parameter.choices == get_args(Scope)
