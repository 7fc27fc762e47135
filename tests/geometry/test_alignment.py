"""Oracles: matrices worked out by hand and the definitions on dense matrices in numpy."""

import math

import numpy as np
import pytest
import torch

from alliage.geometry import (
    Decomposition,
    low_rank_svd,
    singular_task_interference,
    subspace_alignment,
    sum_of,
)
from tests.geometry.test_low_rank import A1, A2, B1, B2, random

E = torch.eye(3, dtype=torch.float64)
FIRST = Decomposition(*low_rank_svd(B1, A1))
SECOND = Decomposition(*low_rank_svd(B2, A2))
NOTHING = Decomposition(*low_rank_svd(torch.zeros(12, 1), torch.zeros(1, 10)))


def test_alignment_by_hand():
    # M = diag(4, 3, 0.1). ε = 0.05: after two directions 0.1 of √25.01 = 0.02 is left, after one
    # 0.6: k = 2. ΔW = diag(2, 1, 2) keeps √(4 + 1) of √9.
    merged = Decomposition(E, torch.tensor([4.0, 3.0, 0.1]), E)
    update = Decomposition(E[:, [0, 2, 1]], torch.tensor([2.0, 2.0, 1.0]), E[:, [0, 2, 1]])
    assert subspace_alignment(update, merged) == pytest.approx(math.sqrt(5) / 3, abs=1e-14)
    # ε = 0.61: one direction is enough; ε = 0: all three.
    assert subspace_alignment(update, merged, 0.61) == pytest.approx(2 / 3, abs=1e-14)
    assert subspace_alignment(update, merged, 0.0) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("epsilon", [0.05, 0.312])
def test_alignment_agrees_with_the_dense_definition(epsilon):
    merged = (B1 @ A1 + B2 @ A2).numpy()
    U, S, V = np.linalg.svd(merged)
    k = next(
        k
        for k in range(7)
        if np.linalg.norm(merged - U[:, :k] * S[:k] @ V[:k]) <= epsilon * np.linalg.norm(merged)
    )
    for update, dense in ((FIRST, (B1 @ A1).numpy()), (SECOND, (B2 @ A2).numpy())):
        expected = np.linalg.norm(U[:, :k] @ U[:, :k].T @ dense) / np.linalg.norm(dense)
        found = subspace_alignment(update, sum_of([FIRST, SECOND]), epsilon)
        assert found == pytest.approx(expected, abs=1e-12)


def test_alignment_does_not_depend_on_the_task_before():
    """Nor is it 1 for every task after the first, as a published script has it."""
    merged = Decomposition(E[:, :1], torch.tensor([1.0]), E[:, :1])
    inside = Decomposition(E[:, :1], torch.tensor([5.0]), E[:, :1])
    outside = Decomposition(E[:, 1:2], torch.tensor([5.0]), E[:, 1:2])
    assert [subspace_alignment(u, merged) for u in (inside, outside, outside)] == [1, 0, 0]


def test_the_sum_is_that_of_the_dense_matrices():
    total = sum_of([FIRST, SECOND])
    np.testing.assert_allclose(total.U * total.S @ total.V.T, B1 @ A1 + B2 @ A2, atol=1e-12)
    assert len(sum_of([FIRST, Decomposition(FIRST.U, FIRST.S, -FIRST.V)]).S) == 0


def test_interference_by_hand():
    # u₁ = v₁ = e1, σ₁ = 2; u₂ = cos 60° e1 + sin 60° e2, v₂ = cos 60° e1 + sin 60° e3, σ₂ = 3.
    # UᵀU − I = VᵀV − I = [[0, ½], [½, 0]]; times Σ = diag(2, 3): [[¾, 0], [0, ½]], in all 1.25.
    c, s = 0.5, math.sqrt(0.75)
    first = Decomposition(E[:, :1], torch.tensor([2.0]), E[:, :1])
    left, right = torch.tensor([[c], [s], [0.0]]), torch.tensor([[c], [0.0], [s]])
    second = Decomposition(left.double(), torch.tensor([3.0]), right.double())
    assert singular_task_interference([first, second]) == pytest.approx(1.25, abs=1e-7)


def test_interference_agrees_with_the_dense_definition():
    third = Decomposition(*low_rank_svd(random(12, 2), random(2, 10, seed=1)))
    updates = [FIRST, SECOND, third]
    U = np.concatenate([update.U.numpy() for update in updates], axis=1)
    V = np.concatenate([update.V.numpy() for update in updates], axis=1)
    S = np.diag(np.concatenate([update.S.numpy() for update in updates]))
    expected = np.abs((U.T @ U - np.eye(8)) @ S @ (V.T @ V - np.eye(8))).sum()
    assert singular_task_interference(updates) == pytest.approx(expected, rel=1e-12)


def test_orthogonal_directions_on_one_side_do_not_interfere():
    first = Decomposition(E[:, :1], torch.tensor([2.0]), E[:, :1])
    second = Decomposition(E[:, 1:2], torch.tensor([3.0]), E[:, :1])
    assert singular_task_interference([first, second]) == 0.0


def test_zero_is_undefined_and_a_wrong_share_is_refused():
    assert math.isnan(subspace_alignment(NOTHING, FIRST))
    assert math.isnan(subspace_alignment(FIRST, NOTHING))
    assert math.isnan(singular_task_interference([FIRST, NOTHING]))
    with pytest.raises(ValueError, match=r"epsilon in \[0, 1\)"):
        subspace_alignment(FIRST, FIRST, 1.0)
