"""Iso-CTS on matrices worked out by hand and against its formula in other steps."""

import numpy as np
import pytest
import torch
from scipy.linalg import null_space, polar

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.tensors import close, draw

iso_c, iso_cts = get_method("iso_c"), get_method("iso_cts")


def test_worked_out_by_hand():
    # half of four directions are common: of the sum diag(12, 8, 3, 1) the first two. Without them
    # the tasks' own largest ones are 3e₃e₃ᵀ and 1e₄e₄ᵀ; the mean of 12, 8, 3 and 1 is 6
    deltas = torch.stack([torch.diag(torch.tensor(d)) for d in ([6.0, 4, 3, 0], [6.0, 4, 0, 1])])
    close(iso_cts(deltas, common=0.5), 6 * torch.eye(4))
    close(iso_cts(deltas, common=0.5, scale=0.5), 3 * torch.eye(4))


def test_a_sum_that_cancels_keeps_the_tasks_own_directions():
    # the sum diag(4, 2, 0, 0) hides ±5e₃e₃ᵀ: both tasks have it, of opposite signs on the right;
    # side by side e₃ shares its place: left (e₃, e₃)/√2, right (e₃, −e₃)/√2, which cancel
    deltas = torch.stack([torch.diag(torch.tensor(d)) for d in ([2.0, 1, 5, 0], [2.0, 1, -5, 0])])
    # (4 + 2 + 5 + 5) / 4 = 4
    close(iso_cts(deltas, common=0.5), torch.diag(torch.tensor([4.0, 4, 0, 0])))


@pytest.mark.parametrize("shape", [(9, 7), (7, 9), (8, 8)])
@pytest.mark.parametrize("common", [0.0, 0.3, 0.8])
def test_it_is_its_formula(shape, common):
    deltas = draw(3, *shape)
    tasks = deltas.double().numpy()
    size = min(shape)
    own = {0.0: size // 3, 0.3: {7: 2, 8: 2}[size], 0.8: {7: 1, 8: 1}[size]}[common]
    u, s, vt = np.linalg.svd(tasks.sum(axis=0))
    count = size - 3 * own
    left, values, right = [u[:, :count]], [s[:count]], [vt[:count].T]
    outside = null_space(u[:, :count].T) if count else np.eye(shape[0])
    for task in tasks:  # in coordinates of the complement
        x, y, zt = np.linalg.svd(outside.T @ task)
        left.append(outside @ x[:, :own])
        values.append(y[:own])
        right.append(zt[:own].T)
    mean = np.concatenate(values).mean()
    expected = mean * polar(np.hstack(left))[0] @ polar(np.hstack(right))[0].T
    close(iso_cts(deltas, common=common), expected, atol=1e-5)


def test_all_in_common_is_iso_c():
    deltas = draw(3, 6, 9)
    close(iso_cts(deltas, common=1.0), iso_c(deltas))
    many = draw(7, 3, 4)  # three directions cannot be shared out among seven
    close(iso_cts(many, common=0.5), iso_c(many))


def test_a_task_within_the_common_directions_adds_none_of_chance():
    # three of five directions are common, and the sum has two: nothing is left for the tasks
    shared = draw(5, 2) @ draw(2, 5, seed=1)
    deltas = torch.stack([shared, 2 * shared])
    close(iso_cts(deltas, common=0.6), iso_c(deltas), atol=1e-5)


def test_bad_input():
    for wrong in (-0.1, 1.5, "most"):
        content = {"method": "iso_cts", "models": ["a"], "parameters": {"common": wrong}}
        with pytest.raises(UsageError, match=r"parameters\.common: must be"):
            parse_recipe(content).settings()
