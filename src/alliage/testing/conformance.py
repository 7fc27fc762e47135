"""What every merge method keeps, built in or from a plug-in.

from alliage.testing import check_method
def test_my_method():
    check_method("my_method")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from alliage.errors import UsageError
from alliage.merging.recipe.files import parse_recipe
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.registry import Method, Parameter, PerBlock, Sampling, describe


def check_method(name: str) -> None:
    """Check a registered method against the rules that all share.

    One model at full weight gives that model. Zero deltas stay zero. Models may be permuted with
    their weights. Blocks give what the whole gives, given the whole's statistics. The result is
    finite float32 of one model's shape, the same each time; the inputs are untouched. Values
    outside the declared ranges are refused.

    Raises:
        AssertionError: with the rule that is broken.
    """
    method = describe(name)
    rules = {"factors": _FACTOR_RULES, "tensor": _TENSOR_RULES, "block": _BLOCK_RULES}[method.unit]
    for rule in (*_DECLARATION_RULES, *rules):
        rule(method)


def _declares(method: Method) -> None:
    assert method.summary.endswith("."), "the docstring's first line is a sentence"
    assert method.paper, "the source is named"
    for parameter in method.parameters.values():
        assert parameter.meaning, f"{parameter.name} is described in the docstring's Args"
        assert not parameter.check(parameter.default), f"{parameter.name}'s default is allowed"


def _refuses_what_is_out_of_range(method: Method) -> None:
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


def _one_model_gives_that_model(method: Method) -> None:
    if method.models not in (None, 1):
        return
    models = _models(1, method)
    neutral = {"density": 1.0, "scale": 1.0}
    given = {key: value for key, value in neutral.items() if key in method.parameters}
    merged = method.function(models, **given, **_statistics(method, models))
    torch.testing.assert_close(merged, models[0], rtol=1e-6, atol=1e-7)


def _zero_deltas_stay_zero(method: Method) -> None:
    zeros = torch.zeros_like(_models(_count(method), method))
    merged = method.function(zeros, **_statistics(method, zeros))
    assert torch.equal(merged, zeros[0]), "zeros stay zero"


def _models_may_be_permuted(method: Method) -> None:
    if method.models is not None or method.random:
        return
    models, order = _models(4, method), [2, 0, 3, 1]
    weights = torch.tensor([0.5, 1.0, 2.0, 1.5])
    given = {"weight": weights} if "weight" in method.parameters else {}
    permuted = {"weight": weights[order]} if given else {}
    known = _statistics(method, models)
    given |= known
    permuted |= {name: values[order] for name, values in known.items()}
    torch.testing.assert_close(
        method.function(models, **given),
        method.function(models[order], **permuted),
        rtol=1e-5,
        atol=1e-6,
    )


def _shape_and_type(method: Method) -> None:
    models = _models(_count(method)).reshape(-1, 5, 20)
    merged = method.function(models, **_statistics(method, models))
    assert merged.shape == (5, 20), "the result has one model's shape"
    assert merged.dtype == torch.float32, "the result is float32"
    assert merged.isfinite().all(), "the result is finite"


def _inputs_stay_and_results_repeat(method: Method) -> None:
    models = _models(_count(method), method)
    given = _statistics(method, models)
    before = models.clone(), {name: values.clone() for name, values in given.items()}
    first, second = method.function(models, **given), method.function(models, **given)
    assert torch.equal(models, before[0]), "the inputs are untouched"
    for name, values in given.items():
        assert torch.equal(values, before[1][name]), f"{name} is untouched"
    assert torch.equal(first, second), "the same inputs give the same result"


def _blocks_make_the_whole(method: Method) -> None:
    models = _models(_count(method))
    arguments = {
        name: [parameter.default] * len(models) if parameter.per_model else parameter.default
        for name, parameter in method.parameters.items()
    }
    drawn = {"uniform": torch.rand_like(models)} if method.random else {}
    drawn |= _statistics(method, models)
    whole = method.function(models, **arguments, **drawn)
    size = 17
    blocks = torch.split(models, size, dim=1)
    pieces = {name: torch.split(values, size, dim=1) for name, values in drawn.items()}
    draws = [{name: each[place] for name, each in pieces.items()} for place in range(len(blocks))]
    shared: dict[str, Any] = {}
    if method.first_pass is not None:
        read = {key: arguments[key] for key in method.first_pass.reads}
        reduction = method.first_pass(len(models), models.shape[1], **read)
        if isinstance(reduction, Sampling):
            reduction.sample(models[:, ::9])
        result = reduction.result()
        while result is None:
            for place, block in enumerate(blocks):
                reduction.update(block, place, **draws[place])
            result = reduction.result()
        shared = dict(result)
    if method.guess is not None:
        guessed = arguments | shared | dict(method.guess.guessed)
        count = sum(method.guess.look(block, **guessed)[0] for block in blocks)
        shared |= method.guess.settle(count)
    parts = []
    for place, block in enumerate(blocks):
        own = {k: v[place] if isinstance(v, PerBlock) else v for k, v in shared.items()}
        parts.append(method.function(block, **arguments, **own, **draws[place]))
    assert torch.allclose(torch.cat(parts), whole, rtol=1e-6, atol=0), "blocks make the whole"


def _one_adapter_gives_its_factors(method: Method) -> None:
    B, A = _factors(1)
    merged_B, merged_A = method.function(B, A)
    torch.testing.assert_close(merged_B @ merged_A, B[0] @ A[0], rtol=1e-5, atol=1e-6)


def _adapters_may_be_permuted(method: Method) -> None:
    (B, A), order = _factors(3), [2, 0, 1]
    ours, theirs = method.function(B, A), method.function(B[order], A[order])
    torch.testing.assert_close(ours[0] @ ours[1], theirs[0] @ theirs[1], rtol=1e-5, atol=1e-6)


def _factors_stay_untouched(method: Method) -> None:
    B, A = _factors(3)
    before = B.clone(), A.clone()
    method.function(B, A)
    assert torch.equal(B, before[0]), "B is untouched"
    assert torch.equal(A, before[1]), "A is untouched"


_DECLARATION_RULES: tuple[Callable[[Method], None], ...] = (
    _declares,
    _refuses_what_is_out_of_range,
)
_TENSOR_RULES: tuple[Callable[[Method], None], ...] = (
    _one_model_gives_that_model,
    _zero_deltas_stay_zero,
    _models_may_be_permuted,
    _shape_and_type,
    _inputs_stay_and_results_repeat,
)
_BLOCK_RULES = (*_TENSOR_RULES, _blocks_make_the_whole)
_FACTOR_RULES: tuple[Callable[[Method], None], ...] = (
    _one_adapter_gives_its_factors,
    _adapters_may_be_permuted,
    _factors_stay_untouched,
)


def _count(method: Method) -> int:
    return method.models or 3


def _models(count: int, method: Method | None = None) -> Tensor:
    models = torch.randn(count, 100, generator=torch.Generator().manual_seed(count))
    # What is known of a layer's inputs goes with its whole matrix.
    of_inputs = method is not None and method.statistics not in (None, "fisher")
    return models.reshape(count, 5, 20) if of_inputs else models


def _statistics(method: Method, models: Tensor) -> dict[str, Tensor]:
    """Random ones, as a model's might be."""
    generator = torch.Generator().manual_seed(len(models))
    if method.statistics is None:
        return {}
    if method.statistics == "fisher":
        return {"fisher": torch.rand(models.shape, generator=generator)}
    inputs = torch.randn(len(models), 50, models.shape[-1], generator=generator)
    return {"grams": inputs.mT @ inputs / 50}


def _factors(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return (
        torch.randn(count, 7, 2, generator=generator),
        torch.randn(count, 2, 5, generator=generator),
    )
