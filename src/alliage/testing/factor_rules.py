"""What methods on LoRA factors keep, one function for each rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alliage.merging.registry import Method
from alliage.testing.tensor_rules import unequal


def one_adapter_gives_its_update(method: Method, neutral: Mapping[str, Any]) -> None:
    """One adapter at full weight gives its update."""
    if method.models not in (None, 1):
        return
    B, A = _factors(1)
    given = ({"weight": 1.0} if "weight" in method.parameters else {}) | dict(neutral)
    torch.testing.assert_close(_update(method, B, A, **given), B[0] @ A[0], rtol=1e-5, atol=1e-6)


def zero_updates_stay_zero(method: Method) -> None:
    """Zero updates stay zero."""
    B, A = _factors(_count(method))
    for updates in (
        _update(method, torch.zeros_like(B), A),
        _update(method, B, torch.zeros_like(A)),
        _update(method, torch.zeros_like(B), torch.zeros_like(A)),
    ):
        assert torch.equal(updates, torch.zeros(7, 5)), "zeros stay zero"


def adapters_may_be_permuted(method: Method) -> None:
    """Adapters may be permuted together with what each has of its own."""
    if method.models is not None or method.random:
        return
    (B, A), order = _factors(3), [2, 0, 1]
    for parameter in (None, *(p for p in method.parameters.values() if p.per_model)):
        given = {} if parameter is None else {parameter.name: unequal(parameter, 3)}
        permuted = {name: values[order] for name, values in given.items()}
        torch.testing.assert_close(
            _update(method, B, A, **given),
            _update(method, B[order], A[order], **permuted),
            rtol=1e-5,
            atol=1e-5,
            msg=partial("{1}\nwith {0}".format, given or "the defaults"),
        )


def weights_count(method: Method) -> None:
    """Weights that are declared change the result."""
    weight = method.parameters.get("weight")
    if weight is None or not weight.per_model or method.models == 1:
        return
    B, A = _factors(_count(method))
    values = unequal(weight, len(B))
    equal, other = (
        _update(method, B, A, weight=each)
        for each in (torch.full_like(values, float(values.mean())), values)
    )
    assert not torch.equal(equal, other), "unequal weights give what equal ones give"


def copies_give_the_update(method: Method) -> None:
    """Copies of one adapter give its update, where the method declares it."""
    if not method.identical or method.random:
        return
    B, A = (factors.repeat(_count(method), 1, 1) for factors in _factors(1))
    torch.testing.assert_close(_update(method, B, A), B[0] @ A[0], rtol=1e-5, atol=1e-6)


def only_the_product_counts(method: Method) -> None:
    """Other factors (BR, R⁻¹A) of the same updates, and other ranks, give the same result."""
    if method.rank is None:  # its factors are merged entry by entry
        return
    B, A = _factors(_count(method))
    given = {"balanced": True} if "balanced" in method.parameters else {}
    turn = torch.eye(2).repeat(len(B), 1, 1)
    turn[0] = torch.tensor([[2.0, 1.0], [0.5, 1.5]])  # of one adapter: of all, means would hold
    expected = _update(method, B, A, **given)
    turned = _update(method, B @ turn, torch.linalg.inv(turn) @ A, **given)
    torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-5)
    wider = torch.nn.functional.pad(B[0], (0, 1)), torch.nn.functional.pad(A[0], (0, 0, 0, 1))
    cut = {"rank": 2} if "rank" in method.parameters else {}
    longer = _update(method, [wider[0], *B[1:]], [wider[1], *A[1:]], **given, **cut)
    torch.testing.assert_close(longer, expected, rtol=1e-4, atol=1e-5)


def updates_scale(method: Method) -> None:
    """Updates that are scaled together give the result scaled, where the method declares it."""
    if not method.homogeneous:
        return
    B, A = _factors(_count(method))
    given = {"balanced": True} if "balanced" in method.parameters else {}
    four = _update(method, 2 * B, 2 * A, **given)
    torch.testing.assert_close(four, 4 * _update(method, B, A, **given), rtol=1e-4, atol=1e-5)


def rank_is_as_declared(method: Method) -> None:
    """The result's factors have the rank that is declared."""
    if method.rank is None:
        return
    B, A = _factors(_count(method))
    pairs, without, place = (list(B), list(A)), (list(B), list(A)), len(B) // 2
    without[0][place], without[1][place] = B[place][:, :0], A[place][:0]
    for factors in (pairs, without):
        merged, ranks = method.function(*factors), [b.shape[1] for b in factors[0]]
        defaults = {name: declared.default for name, declared in method.parameters.items()}
        most, _ = method.rank(ranks, 7, 5, **defaults)
        assert merged[0].shape == (7, merged[1].shape[0]), "B is [d_out, k]"
        assert merged[1].shape == (merged[0].shape[1], 5), "A is [k, d_in]"
        assert len(merged[1]) <= most, "the rank is at most what the method declares"
        assert merged[0].dtype == merged[1].dtype == torch.float32, "the result is float32"


def factors_stay_untouched(method: Method) -> None:
    """The inputs are untouched, and the same inputs give the same result."""
    B, A = _factors(_count(method))
    before = B.clone(), A.clone()
    first, second = method.function(B, A), method.function(B, A)
    assert torch.equal(B, before[0]), "B is untouched"
    assert torch.equal(A, before[1]), "A is untouched"
    assert torch.equal(first[0], second[0]), "the same inputs give the same B"
    assert torch.equal(first[1], second[1]), "the same inputs give the same A"


def factors_multiply_the_result(method: Method) -> None:
    """A parameter marked as a factor multiplies the result."""
    B, A = _factors(_count(method))
    for name in [each.name for each in method.parameters.values() if each.factor]:
        once, twice = (_update(method, B, A, **{name: value}) for value in (1.0, 2.0))
        torch.testing.assert_close(twice, 2 * once, rtol=1e-5, atol=1e-6)


def ends_of_ranges(method: Method) -> None:
    """The result is finite at the ends of every range.

    Where each adapter has a value of its own, one of them has it. A ValueError is an answer too:
    two values may not go together.
    """
    B, A = _factors(_count(method))
    for parameter in method.parameters.values():
        for end in parameter.extremes():
            value = end
            if parameter.per_model:
                value = torch.tensor([float(end)] + [float(parameter.default)] * (len(B) - 1))
            try:
                merged = _update(method, B, A, **{parameter.name: value})
            except ValueError:
                continue
            how = f" with {parameter.name}={value!r}"
            assert merged.shape == (7, 5), f"got {list(merged.shape)} for updates of [7, 5]{how}"
            assert merged.dtype == torch.float32, f"got {merged.dtype}{how}"
            assert merged.isfinite().all(), f"got NaN or infinity{how}"


ALL: tuple[Callable[[Method], None], ...] = (
    zero_updates_stay_zero,
    adapters_may_be_permuted,
    weights_count,
    copies_give_the_update,
    only_the_product_counts,
    updates_scale,
    factors_multiply_the_result,
    ends_of_ranges,
    rank_is_as_declared,
    factors_stay_untouched,
)


def _update(
    method: Method, B: Tensor | Sequence[Tensor], A: Tensor | Sequence[Tensor], **arguments: Any
) -> Tensor:
    merged_B, merged_A = method.function(B, A, **arguments)
    product: Tensor = merged_B @ merged_A
    return product


def _count(method: Method) -> int:
    return method.models or 3


def _factors(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return (
        torch.randn(count, 7, 2, generator=generator),
        torch.randn(count, 2, 5, generator=generator),
    )
