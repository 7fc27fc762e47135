"""TSV-M on matrices worked out by hand and against polar decompositions."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import polar

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.tensors import close, draw

tsv_m = get_method("tsv_m")


def test_two_matrices_worked_out_by_hand():
    # one direction of each stays, the 3 and the 2; they are orthogonal already
    deltas = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.0, 2.0]]])
    close(tsv_m(deltas), [[3.0, 0.0], [0.0, 2.0]])
    close(tsv_m(deltas, scale=0.5), [[1.5, 0.0], [0.0, 1.0]])


def test_directions_at_sixty_degrees_worked_out_by_hand():
    # 4·(1, 0)e₁ᵀ and 2·(cos 60°, sin 60°)e₂ᵀ: on the left they turn to -15° and 75°
    sixty, fifteen = math.radians(60), math.radians(15)
    deltas = torch.tensor(
        [
            [[4.0, 0.0], [0.0, 0.0]],
            [[0.0, 2 * math.cos(sixty)], [0.0, 2 * math.sin(sixty)]],
        ]
    )
    expected = [
        [4 * math.cos(fifteen), 2 * math.sin(fifteen)],
        [-4 * math.sin(fifteen), 2 * math.cos(fifteen)],
    ]
    close(tsv_m(deltas), expected)


def test_tasks_in_orthogonal_subspaces_are_added_up():
    left, right = (torch.linalg.qr(draw(12, 6, seed=s)).Q for s in (1, 2))
    deltas = torch.stack([left[:, i : i + 2] @ right[:, i : i + 2].mT for i in (0, 2, 4)])
    close(tsv_m(deltas), deltas.sum(dim=0))


def test_one_task_and_twins_stay_what_they_are():
    task = draw(8, 3) @ draw(3, 10, seed=1)
    close(tsv_m(task[None]), task, atol=1e-5)
    close(tsv_m(task.expand(2, -1, -1)), task, atol=1e-5)  # 3 of 8 directions: both keep all


def test_it_is_the_product_of_polar_factors():
    deltas = draw(3, 11, 9)
    kept = [np.linalg.svd(delta.double().numpy()) for delta in deltas]
    left = np.hstack([u[:, :3] for u, _, _ in kept])
    right = np.hstack([vt[:3].T for _, _, vt in kept])
    values = np.concatenate([s[:3] for _, s, _ in kept])
    expected = polar(left)[0] @ np.diag(values) @ polar(right)[0].T
    close(tsv_m(deltas), expected)


def test_more_tasks_than_ranks_all_count():
    # each keeps its only direction: e₁e₁ᵀ twice shares its place, 1·½ + 3·½, e₂e₂ᵀ has its own
    deltas = torch.zeros(3, 2, 2)
    deltas[0, 0, 0], deltas[1, 0, 0], deltas[2, 1, 1] = 1.0, 3.0, 5.0
    close(tsv_m(deltas), [[2.0, 0.0], [0.0, 5.0]])


def test_bad_input():
    content = {"method": "tsv_m", "base": "b", "models": ["a"], "parameters": {"scale": "big"}}
    with pytest.raises(UsageError, match=r"parameters\.scale: must be a finite number"):
        parse_recipe(content).settings()
