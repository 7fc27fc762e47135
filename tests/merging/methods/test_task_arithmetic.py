"""On numbers worked out by hand."""

import torch

from alliage.merging import task_arithmetic

MODELS = torch.tensor([[1.0, -2.0], [3.0, 6.0], [5.0, 5.0]])


def test_task_arithmetic():
    assert torch.equal(task_arithmetic(MODELS, scale=0.5), torch.tensor([4.5, 4.5]))
    weighted = task_arithmetic(MODELS, weight=torch.tensor([1.0, 0.0, -1.0]), scale=1.0)
    assert torch.equal(weighted, torch.tensor([-4.0, -7.0]))
