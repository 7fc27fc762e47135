"""Values cut one by one, which turns the gradient."""

from __future__ import annotations

import torch

from alliage.tuning.science.clipping import by_value


def test_each_value_is_cut_on_its_own():
    model = torch.nn.Linear(3, 1)
    model.weight.grad = torch.tensor([[3.0, -0.5, -7.0]])
    by_value(1.0).on_pre_optimizer_step(None, None, None, model=model)
    assert model.weight.grad.tolist() == [[1.0, -0.5, -1.0]]
