"""Spectral truncation and rescale on matrices worked out by hand and against its formula."""

import numpy as np
import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.tensors import close

star = get_method("star")


def diagonal(*values):
    return torch.diag(torch.tensor(values, dtype=torch.float32))


def test_worked_out_by_hand():
    task = diagonal(6, 3, 1)[None]
    close(star(task), diagonal(10, 0, 0))  # 6 is more than 4 of 10: it takes all
    close(star(task, eta=0.6), diagonal(10, 0, 0))  # 6 is 6 of 10
    close(star(task, eta=0.7), diagonal(20 / 3, 10 / 3, 0))  # 6 and 3, times 10/9
    close(star(task, eta=1.0), task[0])
    # with a second task, 8e₃e₃ᵀ, the mean of the two
    close(star(torch.stack([task[0], diagonal(0, 0, 8)])), diagonal(5, 0, 4))


@pytest.mark.parametrize("eta", [0.05, 0.4, 0.9])
def test_each_task_keeps_its_nuclear_norm_in_fewer_directions(eta):
    deltas = torch.randn(3, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((9, 7))
    for task in deltas.double().numpy():
        u, s, vt = np.linalg.svd(task, full_matrices=False)
        rank = next(r for r in range(1, 8) if s[:r].sum() >= eta * s.sum())
        expected += (u[:, :rank] * (s[:rank] * s.sum() / s[:rank].sum())) @ vt[:rank] / 3
        alone = star(torch.from_numpy(task).float()[None], eta=eta).double().numpy()
        assert np.linalg.matrix_rank(alone, tol=1e-4) == rank
        assert np.linalg.norm(alone, "nuc") == pytest.approx(s.sum(), rel=1e-5)
    close(star(deltas, eta=eta), expected, atol=1e-5)


def test_bad_input():
    for wrong in (0, 40, "most"):  # the paper's 40 is a percentage
        content = {"method": "star", "models": ["a"], "parameters": {"eta": wrong}}
        with pytest.raises(UsageError, match=r"parameters\.eta: must be"):
            parse_recipe(content).settings()
