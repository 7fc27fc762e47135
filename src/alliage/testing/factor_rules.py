"""What methods on LoRA factors keep, one function for each rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alliage.merging.registry import Method


def one_adapter_gives_its_update(method: Method, neutral: Mapping[str, Any]) -> None:
    """One adapter at full weight gives its update."""
    B, A = _factors(1)
    given = ({"weight": 1.0} if "weight" in method.parameters else {}) | dict(neutral)
    torch.testing.assert_close(_update(method, B, A, **given), B[0] @ A[0], rtol=1e-5, atol=1e-6)


def zero_updates_stay_zero(method: Method) -> None:
    """Zero updates stay zero."""
    B, A = _factors(3)
    for updates in (
        _update(method, torch.zeros_like(B), A),
        _update(method, B, torch.zeros_like(A)),
        _update(method, torch.zeros_like(B), torch.zeros_like(A)),
    ):
        assert torch.equal(updates, torch.zeros(7, 5)), "zeros stay zero"


def adapters_may_be_permuted(method: Method) -> None:
    """Adapters may be permuted with their weights."""
    if method.random:
        return
    (B, A), order = _factors(3), [2, 0, 1]
    weights = torch.tensor([0.5, 1.0, 2.0])
    ours, theirs = (
        _update(method, B[places], A[places], weight=weights[places])
        for places in ([0, 1, 2], order)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def only_the_product_counts(method: Method) -> None:
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


def updates_scale(method: Method) -> None:
    """Updates that are scaled together give the result scaled."""
    B, A = _factors(3)
    given = {"balanced": True} if "balanced" in method.parameters else {}
    four = _update(method, 2 * B, 2 * A, **given)
    torch.testing.assert_close(four, 4 * _update(method, B, A, **given), rtol=1e-4, atol=1e-5)


def rank_is_as_declared(method: Method) -> None:
    """The result's factors have the rank that is declared."""
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


def factors_stay_untouched(method: Method) -> None:
    """The inputs are untouched, and the same inputs give the same result."""
    B, A = _factors(3)
    before = B.clone(), A.clone()
    first, second = method.function(B, A), method.function(B, A)
    assert torch.equal(B, before[0]), "B is untouched"
    assert torch.equal(A, before[1]), "A is untouched"
    assert torch.equal(first[0], second[0]), "the same inputs give the same B"
    assert torch.equal(first[1], second[1]), "the same inputs give the same A"


ALL: tuple[Callable[[Method], None], ...] = (
    zero_updates_stay_zero,
    adapters_may_be_permuted,
    only_the_product_counts,
    updates_scale,
    rank_is_as_declared,
    factors_stay_untouched,
)


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
