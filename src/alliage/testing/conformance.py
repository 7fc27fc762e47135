"""What every merge method keeps, built in or from a plug-in.

from alliage.testing import check_method
def test_my_method():
    check_method("my_method")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alliage.errors import UsageError
from alliage.merging.recipe.files import parse_recipe
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.registry import Method, PerBlock, Sampling, describe
from alliage.merging.rules import ruled
from alliage.merging.signature import Parameter
from alliage.testing.engine import check_in_engine


def check_method(name: str) -> None:
    """Check a registered method against the rules that all share.

    One model at full weight gives that model. Zero deltas stay zero. Models may be permuted with
    their weights. Blocks give what the whole gives, given the whole's statistics. The result is
    finite float32 of one model's shape, the same each time; the inputs are untouched. Values
    outside the declared ranges are refused. Models that are scaled together give the result scaled,
    and copies of one model that model, where the method declares so. Methods on factors give the
    same update for any factors of it, unless they merge entry by entry, and keep the rank that they
    declare. A parameter marked as a factor multiplies the result. Streamed over files, threads and
    blocks change no byte: see `alliage.testing.engine`.

    Raises:
        AssertionError: with the rule that is broken.
    """
    method = ruled(describe(name), {})
    rules = {"factors": _FACTOR_RULES, "tensor": _TENSOR_RULES, "block": _BLOCK_RULES}[method.unit]
    for rule in (*_DECLARATION_RULES, *rules, check_in_engine):
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


def _copies_give_the_model(method: Method) -> None:
    if not method.identical or method.random:
        return
    for shape in ((100,), (5, 20)):
        copies = _models(1).reshape(1, *shape).expand(_count(method), *shape).clone()
        known = _statistics(method, copies)
        if "grams" in known and len(shape) == 1:
            known = {"grams": None}  # of what is no layer, none are known
        merged = method.function(copies, **known)
        torch.testing.assert_close(merged, copies[0], rtol=1e-5, atol=1e-6)


def _models_may_be_scaled(method: Method) -> None:
    if not method.homogeneous:
        return
    models = _models(_count(method)).reshape(-1, 5, 20)
    given = _statistics(method, models)
    given |= {"uniform": torch.rand_like(models)} if method.random else {}
    torch.testing.assert_close(
        method.function(4 * models, **given),
        4 * method.function(models, **given),
        rtol=1e-4,
        atol=1e-5,
    )


def _factors_multiply_the_result(method: Method) -> None:
    for name in [each.name for each in method.parameters.values() if each.factor]:
        models = _models(_count(method))
        given = _statistics(method, models)
        given |= {"uniform": torch.rand_like(models)} if method.random else {}
        once, twice = (method.function(models, **{name: value}, **given) for value in (1.0, 2.0))
        torch.testing.assert_close(twice, 2 * once, rtol=1e-6, atol=0)


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


def _one_adapter_gives_its_update(method: Method) -> None:
    B, A = _factors(1)
    neutral = {"density": 1.0, "scale": 1.0, "weight": 1.0}
    given = {key: value for key, value in neutral.items() if key in method.parameters}
    torch.testing.assert_close(_update(method, B, A, **given), B[0] @ A[0], rtol=1e-5, atol=1e-6)


def _zero_updates_stay_zero(method: Method) -> None:
    B, A = _factors(3)
    for updates in (
        _update(method, torch.zeros_like(B), A),
        _update(method, B, torch.zeros_like(A)),
        _update(method, torch.zeros_like(B), torch.zeros_like(A)),
    ):
        assert torch.equal(updates, torch.zeros(7, 5)), "zeros stay zero"


def _adapters_may_be_permuted(method: Method) -> None:
    if method.random:
        return
    (B, A), order = _factors(3), [2, 0, 1]
    weights = torch.tensor([0.5, 1.0, 2.0])
    ours, theirs = (
        _update(method, B[places], A[places], weight=weights[places])
        for places in ([0, 1, 2], order)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def _only_the_product_counts(method: Method) -> None:
    """Other factors (BR, R⁻¹A) of the same updates, and other ranks, give the same result."""
    if method.rank is None:  # its factors are merged entry by entry
        return
    B, A = _factors(3)
    given = {"balanced": True} if "balanced" in method.parameters else {}
    turn = torch.eye(2).repeat(3, 1, 1)
    turn[0] = torch.tensor([[2.0, 1.0], [0.5, 1.5]])  # of one adapter: of all, means would hold
    expected = _update(method, B, A, **given)
    turned = _update(method, B @ turn, torch.linalg.inv(turn) @ A, **given)
    torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-5)
    wider = torch.nn.functional.pad(B[0], (0, 1)), torch.nn.functional.pad(A[0], (0, 0, 0, 1))
    cut = {"rank": 2} if "rank" in method.parameters else {}
    longer = _update(method, [wider[0], *B[1:]], [wider[1], *A[1:]], **given, **cut)
    torch.testing.assert_close(longer, expected, rtol=1e-4, atol=1e-5)


def _updates_scale(method: Method) -> None:
    B, A = _factors(3)
    given = {"balanced": True} if "balanced" in method.parameters else {}
    four = _update(method, 2 * B, 2 * A, **given)
    torch.testing.assert_close(four, 4 * _update(method, B, A, **given), rtol=1e-4, atol=1e-5)


def _rank_is_as_declared(method: Method) -> None:
    if method.rank is None:
        return
    B, A = _factors(3)
    pairs = list(B), list(A)
    without = [B[0], B[1][:, :0], B[2]], [A[0], A[1][:0], A[2]]
    for factors in (pairs, without):
        merged, ranks = method.function(*factors), [b.shape[1] for b in factors[0]]
        defaults = {name: declared.default for name, declared in method.parameters.items()}
        most, _ = method.rank(ranks, 7, 5, **defaults)
        assert merged[0].shape == (7, merged[1].shape[0]), "B is [d_out, k]"
        assert merged[1].shape == (merged[0].shape[1], 5), "A is [k, d_in]"
        assert len(merged[1]) <= most, "the rank is at most what the method declares"
        assert merged[0].dtype == merged[1].dtype == torch.float32, "the result is float32"


def _factors_stay_untouched(method: Method) -> None:
    B, A = _factors(3)
    before = B.clone(), A.clone()
    first, second = method.function(B, A), method.function(B, A)
    assert torch.equal(B, before[0]), "B is untouched"
    assert torch.equal(A, before[1]), "A is untouched"
    assert torch.equal(first[0], second[0]), "the same inputs give the same B"
    assert torch.equal(first[1], second[1]), "the same inputs give the same A"


_DECLARATION_RULES: tuple[Callable[[Method], None], ...] = (
    _declares,
    _refuses_what_is_out_of_range,
)
_TENSOR_RULES: tuple[Callable[[Method], None], ...] = (
    _one_model_gives_that_model,
    _zero_deltas_stay_zero,
    _models_may_be_permuted,
    _copies_give_the_model,
    _models_may_be_scaled,
    _factors_multiply_the_result,
    _shape_and_type,
    _inputs_stay_and_results_repeat,
)
_BLOCK_RULES = (*_TENSOR_RULES, _blocks_make_the_whole)
_FACTOR_RULES: tuple[Callable[[Method], None], ...] = (
    _one_adapter_gives_its_update,
    _zero_updates_stay_zero,
    _adapters_may_be_permuted,
    _only_the_product_counts,
    _updates_scale,
    _rank_is_as_declared,
    _factors_stay_untouched,
)


def _count(method: Method) -> int:
    return method.models or 3


def _models(count: int, method: Method | None = None) -> Tensor:
    models = torch.randn(count, 100, generator=torch.Generator().manual_seed(count))
    # What is known of a layer's inputs goes with its whole matrix.
    of_inputs = method is not None and method.statistics not in (None, "fisher")
    return models.reshape(count, 5, 20) if of_inputs else models


def _statistics(method: Method, models: Tensor) -> dict[str, Any]:
    """Random ones, as a model's might be."""
    generator = torch.Generator().manual_seed(len(models))
    if method.statistics is None:
        return {}
    if method.statistics == "fisher":
        return {"fisher": torch.rand(models.shape, generator=generator)}
    inputs = torch.randn(len(models), 50, models.shape[-1], generator=generator)
    return {"grams": inputs.mT @ inputs / 50}


def _update(
    method: Method, B: Tensor | Sequence[Tensor], A: Tensor | Sequence[Tensor], **arguments: Any
) -> Tensor:
    merged_B, merged_A = method.function(B, A, **arguments)
    product: Tensor = merged_B @ merged_A
    return product


def _factors(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return (
        torch.randn(count, 7, 2, generator=generator),
        torch.randn(count, 2, 5, generator=generator),
    )
