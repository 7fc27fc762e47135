"""What every merge method keeps, built in or from a plug-in.

from alliage.testing import check_method
def test_my_method():
    check_method("my_method")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from alliage.errors import UsageError
from alliage.merging.recipe.files import parse_recipe
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.registry import Method, describe
from alliage.merging.rules import ruled, wrong
from alliage.merging.signature import Parameter
from alliage.testing import factor_rules, tensor_rules
from alliage.testing.engine import check_in_engine

Check = Callable[[Method], None]


def check_method(name: str, *, neutral: Mapping[str, Any] | None = None) -> None:
    """Check a registered method against the rules that all share.

    One model at full weight gives that model. Zero deltas stay zero. Models may be permuted with
    their values, and weights that are declared count. Blocks give what the whole gives, given the
    whole's statistics. The result is finite float32 of one model's shape, at the ends of every
    range too, the same each time; the inputs are untouched. Values outside the declared ranges are
    refused. Models that are scaled together give the result scaled, and copies of one model that
    model, however small the deltas, where the method declares so. Methods on factors give the same
    update for any factors of it, unless they merge entry by entry, and keep the rank that they
    declare. A parameter marked as a factor multiplies the result. Streamed over files, threads and
    blocks change no byte: see `alliage.testing.engine`.

    Args:
        name: of the method.
        neutral: parameters with which one model at full weight gives that model, where the defaults
            do not: {"trim": 0.0}. Density, scale and what is marked as a factor are taken at 1.

    Raises:
        AssertionError: with the method, the rule that is broken, and how.
        UsageError: no method of that name; with the nearest.
    """
    method = ruled(describe(name), {})
    given = {
        each.name: 1.0
        for each in method.parameters.values()
        if each.factor or each.name in ("density", "scale")
    }
    given |= neutral or {}
    checks: dict[str, tuple[Check, ...]] = {
        "factors": (
            partial(factor_rules.one_adapter_gives_its_update, neutral=given),
            *factor_rules.ALL,
        ),
        "tensor": (
            partial(tensor_rules.one_model_gives_that_model, neutral=given),
            *tensor_rules.ALL,
        ),
    }
    checks["block"] = (*checks["tensor"], tensor_rules.blocks_make_the_whole)
    for check in (declares, refuses_what_is_out_of_range, *checks[method.unit], check_in_engine):
        _held(method, check)


def _held(method: Method, check: Check) -> None:
    """Run a check; what it raises says which rule it is."""
    function = check.func if isinstance(check, partial) else check
    rule = (inspect.getdoc(function) or "").partition("\n")[0]
    try:
        check(method)
    except Exception as error:
        how = str(error) if isinstance(error, AssertionError) else repr(error)
        raise AssertionError(f"{method.name} breaks a rule: {rule}\n{how}") from error


def declares(method: Method) -> None:
    """It says what it is, where it comes from and what its parameters mean."""
    assert method.summary.endswith("."), "the docstring's first line is a sentence"
    assert method.paper, "the source is named"
    for parameter in method.parameters.values():
        assert parameter.meaning, f"{parameter.name} is described in the docstring's Args"
        assert not wrong(parameter, parameter.default), f"{parameter.name}'s default is allowed"


def refuses_what_is_out_of_range(method: Method) -> None:
    """Values outside a parameter's range are refused by name."""
    for parameter in method.parameters.values():
        for value in _impossible(parameter):
            recipe = parse_recipe(
                {"method": method.name, "models": ["a"], "parameters": {parameter.name: value}}
            )
            assert parameter.name in _refusal(recipe), (
                f"{method.name} refuses {parameter.name}={value!r} by name"
            )


def _refusal(recipe: MergeRecipe) -> str:
    """What a recipe is refused for; nothing where it is accepted."""
    try:
        recipe.settings()
    except UsageError as error:
        return str(error)
    return ""


def _impossible(parameter: Parameter) -> list[Any]:
    values: list[Any] = ["wrong", float("nan"), None]
    if parameter.range is not None:
        low, high = parameter.range.low, parameter.range.high
        values += [low - 1] if low > float("-inf") else []
        values += [high + 1] if high < float("inf") else []
        values += [low] if parameter.range.open_low and low > float("-inf") else []
    return values
