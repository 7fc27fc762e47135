"""On numbers worked out by hand."""

import pytest
import torch

from alliage.merging import factor_average, ties

B = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])  # two B of shape [2, 1]
A = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # two A of shape [1, 2]


def test_averaged_factors_are_not_the_averaged_product():
    merged_B, merged_A = factor_average(B, A)
    assert torch.equal(merged_B, torch.tensor([[0.5], [0.5]]))
    assert torch.equal(merged_A, torch.tensor([[0.5, 0.5]]))
    product = merged_B @ merged_A
    assert torch.equal(product, torch.full((2, 2), 0.25))  # the mean of the products is I/2
    assert torch.equal(factor_average(B, A, weight=torch.tensor([0.0, 3.0]))[0], B[1])


def test_roots_of_weights_make_the_weight_in_the_product():
    given = {"rule": "task_arithmetic", "scale": 1.0, "root": True}
    merged_B, merged_A = factor_average(B, A, weight=torch.tensor([4.0, -9.0]), **given)
    assert torch.equal(merged_B, torch.tensor([[2.0], [3.0]]))
    assert torch.equal(merged_A, torch.tensor([[2.0, -3.0]]))
    alone = factor_average(B[:1], A[:1], weight=torch.tensor([-4.0]), **given)
    assert torch.equal(alone[0] @ alone[1], torch.tensor([[-4.0, 0.0], [0.0, 0.0]]))


def test_another_rule_merges_each_factor_by_itself():
    draw = torch.Generator().manual_seed(0)
    B, A = torch.randn(3, 5, 2, generator=draw), torch.randn(3, 2, 4, generator=draw)
    merged = factor_average(B, A, rule="ties", density=0.4)
    assert torch.equal(merged[0], ties(B, density=0.4))
    assert torch.equal(merged[1], ties(A, density=0.4))


def test_ranks_must_be_one():
    with pytest.raises(RuntimeError, match="equal size"):
        factor_average([B[0], torch.ones(2, 2)], [A[0], torch.ones(2, 2)])
