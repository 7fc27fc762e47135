"""The other methods, on numbers worked out by hand."""

import torch

from alliage.merging import average, factor_average, task_arithmetic

MODELS = torch.tensor([[1.0, -2.0], [3.0, 6.0], [5.0, 5.0]])


def test_average():
    assert torch.equal(average(MODELS), torch.tensor([3.0, 3.0]))
    assert torch.equal(
        average(MODELS, weight=torch.tensor([2.0, 2.0, 0.0])), torch.tensor([2.0, 2.0])
    )


def test_task_arithmetic():
    assert torch.equal(task_arithmetic(MODELS, scale=0.5), torch.tensor([4.5, 4.5]))
    weighted = task_arithmetic(MODELS, weight=torch.tensor([1.0, 0.0, -1.0]), scale=1.0)
    assert torch.equal(weighted, torch.tensor([-4.0, -7.0]))


def test_averaged_factors_are_not_the_averaged_product():
    B = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])  # two B of shape [2, 1]
    A = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # two A of shape [1, 2]
    merged_B, merged_A = factor_average(B, A)
    assert torch.equal(merged_B, torch.tensor([[0.5], [0.5]]))
    assert torch.equal(merged_A, torch.tensor([[0.5, 0.5]]))
    product = merged_B @ merged_A
    assert torch.equal(product, torch.full((2, 2), 0.25))  # the mean of the products is I/2
    assert torch.equal(factor_average(B, A, weight=torch.tensor([0.0, 3.0]))[0], B[1])
