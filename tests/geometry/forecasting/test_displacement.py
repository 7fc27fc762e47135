"""Displacements of planned merges, against dense products and values worked out by hand."""

import pytest
import torch
from torch import Tensor

from alliage.geometry.forecasting.displacement import (
    displacement,
    inner_product,
    input_overlap,
    merged_update,
    output_overlap,
    squared_norm,
)
from alliage.geometry.surveying.pairs import LowRankUpdate


def _update(seed: int, rank: int = 3, scale: float = 2.0) -> LowRankUpdate:
    random = torch.Generator().manual_seed(seed)
    return LowRankUpdate(
        torch.randn(7, rank, generator=random), torch.randn(rank, 5, generator=random), scale
    )


def _dense(update: LowRankUpdate) -> Tensor:
    return update.scale * update.B.double() @ update.A.double()


def test_by_hand() -> None:
    # ΔW = diag(1, 0), the other diag(0, 2): M = diag(½, 1), E = diag(−½, 1).
    first = LowRankUpdate(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]]), 1.0)
    second = LowRankUpdate(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0, 1.0]]), 2.0)
    merged = merged_update([first, second])
    moved = displacement(merged, first)
    assert torch.allclose(_dense(merged), torch.tensor([[0.5, 0.0], [0.0, 1.0]]).double())
    assert squared_norm(moved) == pytest.approx(1.25)
    assert inner_product(merged, first) == pytest.approx(0.5)
    # Only the first output and the first input are those of the task.
    assert output_overlap(first, moved) == pytest.approx(0.25)
    assert input_overlap(first, moved) == pytest.approx(0.25)


@pytest.mark.parametrize("method", ["average", "factor_average"])
def test_against_dense_products(method) -> None:
    updates = [_update(seed) for seed in range(3)]
    merged = merged_update(updates, method)
    dense = torch.stack([_dense(update) for update in updates])
    expected = dense.mean(0)
    if method == "factor_average":
        B = sum(update.B.double() for update in updates) / 3
        expected = 2.0 * B @ (sum(update.A.double() for update in updates) / 3)
    assert torch.allclose(_dense(merged), expected, rtol=1e-12)
    moved, E = displacement(merged, updates[1]), expected - dense[1]
    assert squared_norm(moved) == pytest.approx(float(E.square().sum()), rel=1e-10)
    assert inner_product(merged, updates[1]) == pytest.approx(float((expected * dense[1]).sum()))
    assert output_overlap(updates[1], moved) == pytest.approx(
        float((dense[1].T @ E).square().sum()), rel=1e-10
    )
    assert input_overlap(updates[1], moved) == pytest.approx(
        float((E @ dense[1].T).square().sum()), rel=1e-10
    )


def test_a_merge_of_equal_updates_moves_nothing() -> None:
    update = _update(0)
    moved = displacement(merged_update([update, update]), update)
    assert squared_norm(moved) < 1e-25 * squared_norm(update)


def test_ranks_may_differ_but_factors_of_several_ranks_have_no_average() -> None:
    both = [_update(0, 3), _update(1, 2, 0.5)]
    assert torch.allclose(
        _dense(merged_update(both)), (_dense(both[0]) + _dense(both[1])) / 2, rtol=1e-12
    )
    with pytest.raises(ValueError, match="several ranks"):
        merged_update(both, "factor_average")
