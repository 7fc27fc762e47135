"""Singular-value calibration on matrices worked out by hand and against its formula."""

import numpy as np
import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.tensors import close

svc = get_method("svc")


def diagonals(*rows):
    return torch.stack([torch.diag(torch.tensor(row)) for row in rows])


def test_what_all_tasks_share_is_counted_once():
    # 4 + 4 and 2 + 2: the sum has twice of each, and 2/(2 + 2) takes one half off
    close(svc(diagonals([4.0, 2.0], [4.0, 2.0]), scale=1.0), torch.diag(torch.tensor([4.0, 2.0])))
    # and whatever λ, as long as the tasks count more than α
    close(svc(diagonals([4.0, 2.0], [4.0, 2.0])), torch.diag(torch.tensor([4.0, 2.0])))


def test_a_direction_of_one_task_worked_out_by_hand():
    deltas = diagonals([4.0, 0.0], [0.0, 2.0])
    # e₁: coefficients 1 and none, so α: 4·2/(1 + ½) = 16/3; e₂: 2·2/(½ + 1) = 8/3
    close(svc(deltas, scale=1.0, alpha=0.5), torch.diag(torch.tensor([16 / 3, 8 / 3])))
    close(svc(deltas, scale=1.0, alpha=1.0), deltas.sum(dim=0))


def test_a_rounding_error_is_no_response():
    # the quotient of 4 and 1e-9 would count for billions of tasks, and leave nothing of the 4
    deltas = diagonals([4.0, 0.0], [1e-9, 2.0])
    found = svc(deltas, scale=1.0, alpha=0.5)
    close(found, torch.diag(torch.tensor([16 / 3, 8 / 3])))


def test_a_conflict_worked_out_by_hand():
    # e₁: 4 − 2 = 2 has ½ of the 4 and −1 of the −2, which counts as α: 2·2/(½ + ¼) = 16/3
    # e₂: 1 + 1 = 2 has twice of each: 2·2/(2 + 2) = 1. The 2 and the 2 are equal singular values,
    # so the first is made a little larger: 4.5 − 2 = 2.5, coefficients 5/9 and −5/4
    found = svc(diagonals([4.5, 1.0], [-2.0, 1.0]), scale=1.0, alpha=0.25)
    close(found, torch.diag(torch.tensor([2.5 * 2 / (5 / 9 + 1 / 4), 1.0])))


@pytest.mark.parametrize("scale", [0.3, 1.0])
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_it_is_its_formula(scale, alpha):
    deltas = torch.randn(3, 9, 7, generator=torch.Generator().manual_seed(0))
    tasks = deltas.double().numpy()
    merged = scale * tasks.sum(axis=0)
    u, s, vt = np.linalg.svd(merged, full_matrices=False)
    expected = np.zeros_like(merged)
    for direction, value, row in zip(u.T, s, vt, strict=True):
        coefficients = [
            (direction @ merged) @ (direction @ task) / np.sum((direction @ task) ** 2)
            for task in tasks
        ]
        factor = 3 / sum(max(alpha, each) for each in coefficients)
        expected += factor * value * np.outer(direction, row)
    close(svc(deltas, scale=scale, alpha=alpha), expected, atol=1e-5)


def test_vectors_are_task_arithmetic():
    close(svc(torch.tensor([[1.0, 2.0], [3.0, 4.0]])), [1.2, 1.8])


def test_bad_input():
    for wrong in (0, 1.5, "most"):
        content = {"method": "svc", "models": ["a"], "parameters": {"alpha": wrong}}
        with pytest.raises(UsageError, match=r"parameters\.alpha: must be"):
            parse_recipe(content).settings()
