"""WUDI on matrices worked out by hand and against its loss, differentiated by torch."""

from functools import partial

import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging import tensors

wudi = get_method("wudi")
close = partial(tensors.close, rtol=1e-6, atol=1e-7)


def loss(merged, tasks):
    squares = tasks.square().sum(dim=(1, 2))
    return ((((merged - tasks) @ tasks.mT) ** 2).sum(dim=(1, 2)) / squares).sum()


def small(*shape, seed=0):
    return 1e-3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_worked_out_by_hand():
    # twice the unit matrix: τ = 2I, each ‖τᵢ‖² = 2, the gradient 2·2·(2I − I)·I·I/2 = 2I; Adam's
    # first step is the rate, whatever the gradient's size, and nothing where it is zero
    twins = torch.eye(2).expand(2, -1, -1)
    close(wudi(twins, steps=0), 2 * torch.eye(2))
    close(wudi(twins, steps=1), (2 - 1e-5) * torch.eye(2))
    close(wudi(twins, steps=1, rate=0.25), 1.75 * torch.eye(2))


def test_tasks_with_inputs_of_their_own_stay_their_sum():
    deltas = torch.zeros(2, 2, 2)
    deltas[0, :, 0], deltas[1, :, 1] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert torch.equal(wudi(deltas), deltas.sum(dim=0))


@pytest.mark.parametrize("shape", [(1, 5, 4), (1, 12, 17), (1, 30, 20)])
def test_one_task_stays_what_it_is(shape):
    task = small(*shape)
    assert torch.equal(wudi(task), task[0])


@pytest.mark.parametrize("rate", [1e-5, 1e-4])
@pytest.mark.parametrize("shape", [(3, 6, 9), (2, 9, 6), (2, 3, 20)])
def test_it_is_adam_on_its_loss(shape, rate):
    deltas = small(*shape)
    tasks = deltas.double()
    merged = tasks.sum(dim=0).requires_grad_()
    adam = torch.optim.Adam([merged], lr=rate)
    before = float(loss(merged.detach(), tasks))
    for _ in range(50):
        adam.zero_grad()
        loss(merged, tasks).backward()
        adam.step()
    close(wudi(deltas, steps=50, rate=rate), merged.detach(), rtol=1e-5, atol=1e-9)
    assert (
        float(loss(wudi(deltas, rate=rate).double(), tasks))
        < float(loss(merged.detach(), tasks))
        < before
    )


def test_a_task_that_changes_nothing_has_no_say():
    deltas = small(3, 6, 9)
    deltas[1] = 0
    assert torch.equal(wudi(deltas, steps=9), wudi(deltas[[0, 2]], steps=9))


def test_bad_input():
    for name, wrong in (("steps", -1), ("steps", 1.5), ("steps", "many"), ("rate", 0)):
        content = {"method": "wudi", "models": ["a"], "parameters": {name: wrong}}
        with pytest.raises(UsageError, match=rf"parameters\.{name}: must be"):
            parse_recipe(content).settings()
