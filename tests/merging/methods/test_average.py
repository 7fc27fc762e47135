"""On numbers worked out by hand."""

import torch

from alliage.merging import average

MODELS = torch.tensor([[1.0, -2.0], [3.0, 6.0], [5.0, 5.0]])


def test_average():
    assert torch.equal(average(MODELS), torch.tensor([3.0, 3.0]))
    assert torch.equal(
        average(MODELS, weight=torch.tensor([2.0, 2.0, 0.0])), torch.tensor([2.0, 2.0])
    )
