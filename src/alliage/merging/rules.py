"""Methods inside methods: one that brings models into a common space names the rule that merges.

    rule: ties      any method of blocks or tensors
    density: 0.3    its own parameters, beside it

Such a method calls its argument `apply` wherever it merges. By itself each call is one whole
vector; the engine gives an `apply` that knows what the rule needs to know of all modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alliage.errors import nearest
from alliage.merging.registry import Method, describe, list_methods
from alliage.merging.signature import Parameter

if TYPE_CHECKING:
    from torch import Tensor

Apply = Callable[[str, "Tensor", Mapping[str, Any]], "Tensor"]  # rule, [n, *shape], parameters

_PARAMETER = "rule"


def rule_of(method: Method, given: Mapping[str, Any]) -> Method | None:
    """The rule that `given` names, or the method's default one; None without a rule that is one."""
    declared = method.parameters.get(_PARAMETER)
    if declared is None or not declared.rule:
        return None
    name = given.get(_PARAMETER, declared.default)
    if not isinstance(name, str) or wrong(declared, name):
        return None
    return describe(name)


def wrong(declared: Parameter, value: Any) -> str:
    """What is wrong with a parameter's value, or nothing; a rule must name a method that can be."""
    return declared.check(value) or (_no_rule(value) if declared.rule else "")


def ruled(method: Method, given: Mapping[str, Any]) -> Method:
    """A method with the parameters of the rule that `given` names, or of its default one.

    Methods without a rule, and rules that are none, leave it as it is.
    """
    rule = rule_of(method, given)
    if rule is None:
        return method
    parameters = {**rule.parameters, **method.parameters}
    return replace(method, parameters=parameters, random=rule.random, models=rule.models)


def by_rule(rule: str, tensors: Tensor, parameters: Mapping[str, Any]) -> Tensor:
    """Merge tensors [n, *shape], float32, by a method, as whole vectors."""
    merged: Tensor = describe(rule).function(tensors, **parameters)
    return merged


def _no_rule(value: Any) -> str:
    """Why a value names no method that can be another one's rule, or nothing."""
    known, reasons = [], {}
    for each in map(describe, list_methods()):
        if each.unit == "factors":
            reasons[each.name] = "merges LoRA factors itself"
        elif each.statistics is not None:
            reasons[each.name] = f"needs statistics of the models ({each.statistics})"
        elif each.masks is not None:
            reasons[each.name] = "keeps masks beside what it merges"
        else:
            known.append(each.name)
    if value in known:
        return ""
    why = nearest(str(value), known)
    if isinstance(value, str) and value in reasons:
        why = f"{value} {reasons[value]}"
    return f"must name a method of blocks or tensors ({why})"
