"""On numbers worked out by hand."""

import torch

from alliage.merging import factor_average


def test_averaged_factors_are_not_the_averaged_product():
    B = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])  # two B of shape [2, 1]
    A = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # two A of shape [1, 2]
    merged_B, merged_A = factor_average(B, A)
    assert torch.equal(merged_B, torch.tensor([[0.5], [0.5]]))
    assert torch.equal(merged_A, torch.tensor([[0.5, 0.5]]))
    product = merged_B @ merged_A
    assert torch.equal(product, torch.full((2, 2), 0.25))  # the mean of the products is I/2
    assert torch.equal(factor_average(B, A, weight=torch.tensor([0.0, 3.0]))[0], B[1])
