"""What methods of blocks and tensors keep, one function for each rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alliage.merging.registry import Method, PerBlock, Sampling
from alliage.merging.signature import In, Parameter

_SIZES = (1.0, 1e-5)  # of deltas: a threshold in units of weights shows at the second
_PASSES = 100  # more than any first pass takes


def one_model_gives_that_model(method: Method, neutral: Mapping[str, Any]) -> None:
    """One model at full weight gives that model."""
    if method.models not in (None, 1):
        return
    models = _models(1, method)
    merged = method.function(models, **neutral, **_statistics(method, models))
    torch.testing.assert_close(merged, models[0], rtol=1e-6, atol=1e-7)


def zero_deltas_stay_zero(method: Method) -> None:
    """Zero deltas stay zero."""
    zeros = torch.zeros_like(_models(_count(method), method))
    merged = method.function(zeros, **_statistics(method, zeros))
    assert torch.equal(merged, zeros[0]), f"got {merged.flatten()[:3].tolist()}"


def models_may_be_permuted(method: Method) -> None:
    """Models may be permuted together with what each has of its own."""
    if method.models is not None or method.random:
        return
    models, order = _models(4, method), [2, 0, 3, 1]
    known = _statistics(method, models)
    moved = {name: values[order] for name, values in known.items()}
    for parameter in (None, *(p for p in method.parameters.values() if p.per_model)):
        given = {} if parameter is None else {parameter.name: unequal(parameter, 4)}
        permuted = {name: values[order] for name, values in given.items()}
        torch.testing.assert_close(
            method.function(models, **given, **known),
            method.function(models[order], **permuted, **moved),
            rtol=1e-5,
            atol=1e-6,
            msg=partial("{1}\nwith {0}".format, given or "the defaults"),
        )


def weights_count(method: Method) -> None:
    """Weights that are declared change the result."""
    weight = method.parameters.get("weight")
    if weight is None or not weight.per_model or method.models == 1:
        return
    models = _models(_count(method), method)
    given = _drawn(method, models)
    values = unequal(weight, len(models))
    equal, other = (
        method.function(models, weight=each, **given)
        for each in (torch.full_like(values, float(values.mean())), values)
    )
    assert not torch.equal(equal, other), "unequal weights give what equal ones give"


def copies_give_the_model(method: Method) -> None:
    """Copies of one model give that model, where the method declares it."""
    if not method.identical or method.random:
        return
    for shape in ((100,), (5, 20)):
        for size in _SIZES:
            copies = size * _models(1).reshape(1, *shape).expand(_count(method), *shape)
            known = _statistics(method, copies)
            if "grams" in known and len(shape) == 1:
                known = {"grams": None}  # of what is no layer, none are known
            merged = method.function(copies, **known)
            _close(merged, copies[0], 1e-5, size)


def models_may_be_scaled(method: Method) -> None:
    """Models that are scaled together give the result scaled, where the method declares it."""
    if not method.homogeneous:
        return
    models = _models(_count(method)).reshape(-1, 5, 20)
    given = _drawn(method, models)
    merged = method.function(models, **given)
    for size in (4.0, 2.0**-17):  # by powers of two no entry is rounded
        _close(method.function(size * models, **given), size * merged, 1e-4, size)


def factors_multiply_the_result(method: Method) -> None:
    """A parameter marked as a factor multiplies the result."""
    for name in [each.name for each in method.parameters.values() if each.factor]:
        models = _models(_count(method))
        given = _drawn(method, models)
        once, twice = (method.function(models, **{name: value}, **given) for value in (1.0, 2.0))
        torch.testing.assert_close(twice, 2 * once, rtol=1e-6, atol=0)


def shape_and_type(method: Method) -> None:
    """The result is finite float32 of one model's shape."""
    models = _models(_count(method)).reshape(-1, 5, 20)
    _check_result(method.function(models, **_statistics(method, models)))


def ends_of_ranges(method: Method) -> None:
    """The result is finite at the ends of every range.

    Where each model has a value of its own, one of them has it. A ValueError is an answer too: two
    values may not go together.
    """
    models = _models(_count(method)).reshape(-1, 5, 20)
    given = _drawn(method, models)
    for parameter in method.parameters.values():
        for end in parameter.extremes():
            value = end
            if parameter.per_model:
                value = torch.tensor([float(end)] + [float(parameter.default)] * (len(models) - 1))
            try:
                merged = method.function(models, **{parameter.name: value}, **given)
            except ValueError:
                continue
            _check_result(merged, f" with {parameter.name}={value!r}")


def inputs_stay_and_results_repeat(method: Method) -> None:
    """The inputs are untouched, and the same inputs give the same result."""
    models = _models(_count(method), method)
    given = _statistics(method, models)
    before = models.clone(), {name: values.clone() for name, values in given.items()}
    first, second = method.function(models, **given), method.function(models, **given)
    assert torch.equal(models, before[0]), "the models are changed"
    for name, values in given.items():
        assert torch.equal(values, before[1][name]), f"{name} is changed"
    assert torch.equal(first, second), "a second call gives something else"


def blocks_make_the_whole(method: Method) -> None:
    """Blocks give what the whole gives."""
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
        passes = 0
        while passes < _PASSES:
            if (result := reduction.result()) is not None:
                break
            for place, block in enumerate(blocks):
                reduction.update(block, place, **draws[place])
            passes += 1
        assert result is not None, f"the first pass has no result after {_PASSES} passes"
        least = method.first_pass.least_passes(**arguments)
        assert passes >= least, f"the first pass declares {least} passes and took {passes}"
        assert least or not passes, f"the first pass declares no passes and took {passes}"
        shared = dict(result)
    if method.guess is not None:
        guessed = arguments | shared | dict(method.guess.guessed)
        count = sum(method.guess.look(block, **guessed)[0] for block in blocks)
        shared |= method.guess.settle(count)
    parts = []
    for place, block in enumerate(blocks):
        own = {k: v[place] if isinstance(v, PerBlock) else v for k, v in shared.items()}
        parts.append(method.function(block, **arguments, **own, **draws[place]))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=0)


ALL: tuple[Callable[[Method], None], ...] = (
    zero_deltas_stay_zero,
    models_may_be_permuted,
    weights_count,
    copies_give_the_model,
    models_may_be_scaled,
    factors_multiply_the_result,
    shape_and_type,
    ends_of_ranges,
    inputs_stay_and_results_repeat,
)


def _close(merged: Tensor, expected: Tensor, tolerance: float, size: float) -> None:
    """Equal, but for roundings of deltas of that size."""
    torch.testing.assert_close(
        merged,
        expected,
        rtol=tolerance,
        atol=tolerance / 10 * size,
        msg=lambda text: f"{text}\nwith deltas of size {size:g}",
    )


def _check_result(merged: Tensor, how: str = "") -> None:
    assert merged.shape == (5, 20), f"got {list(merged.shape)} for models of [5, 20]{how}"
    assert merged.dtype == torch.float32, f"got {merged.dtype}{how}"
    assert merged.isfinite().all(), f"got NaN or infinity{how}"


def unequal(parameter: Parameter, count: int) -> Tensor:
    """Values of a parameter for that many models, not all alike, within its range."""
    allowed = parameter.range or In(-math.inf)
    low, high, usual = allowed.low, allowed.high, float(parameter.default or 1)
    steps = torch.tensor([0.5, 1.0, 2.0, 1.5]).repeat(math.ceil(count / 4))[:count]
    if math.isfinite(high - low):
        return low + (high - low) * 0.4 * steps
    if math.isfinite(low):
        return low + (usual - low or 1.0) * steps
    return high - (high - usual or 1.0) * steps if math.isfinite(high) else usual * steps


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


def _drawn(method: Method, models: Tensor) -> dict[str, Any]:
    """Statistics, and random values for a method that needs them."""
    drawn = {"uniform": torch.rand(models.shape)} if method.random else {}
    return _statistics(method, models) | drawn
