"""MetaGPT on vectors worked out by hand, its bound, and streamed against the whole."""

from functools import partial

import numpy as np
import torch
from scipy.optimize import minimize

from alliage.merging import get_method, plan, run
from tests.merging import tensors
from tests.merging.methods.through_engine import SHAPES, checkpoints, deltas_of, merged_everyhow
from tests.merging.test_odd_inputs import recipe

metagpt = get_method("metagpt")
close = partial(tensors.close, rtol=1e-6, atol=1e-7)


def test_worked_out_by_hand():
    # squared norms 9 and 16, shares 9/25 and 16/25
    close(metagpt(torch.tensor([[3.0, 0.0], [0.0, 4.0]])), [27 / 25, 64 / 25])
    # of a block, the shares are the whole vectors'
    block = torch.tensor([[1.0], [2.0]])
    close(metagpt(block, squares=[[1.0, 0.0], [0.0, 3.0]]), [1 / 4 + 2 * 3 / 4])
    assert not metagpt(torch.zeros(2, 3)).any()


def test_the_shares_are_the_best_of_the_papers_bound():
    # Σₜ ‖τₜ‖²·‖Σᵢ λᵢτᵢ − τₜ‖² over orthogonal task vectors
    deltas = torch.diag(torch.tensor([1.0, 2.0, 3.0, 0.5]))
    tasks = deltas.double().numpy()

    def bound(shares):
        return sum(task @ task * np.sum((shares @ tasks - task) ** 2) for task in tasks)

    best = minimize(bound, np.full(4, 0.25), tol=1e-12).x
    close(metagpt(deltas), best @ tasks, rtol=1e-4)


def test_norms_are_the_whole_models(tmp_path):
    models = checkpoints(tmp_path)
    found = merged_everyhow(tmp_path, "metagpt")
    squares = [
        sum(float((model[name] - models[0][name]).double().square().sum()) for name in SHAPES)
        for model in models[1:]
    ]
    for name in SHAPES:
        shares = torch.tensor(squares) / sum(squares)
        merged = (shares.reshape(-1, *[1] * len(SHAPES[name])) * deltas_of(models, name)).sum(dim=0)
        close(found[name], models[0][name] + merged, rtol=1e-5, atol=1e-6)


def test_one_model_is_itself(tmp_path):
    _, model = checkpoints(tmp_path, "a")
    chosen = recipe(tmp_path, "metagpt", "a")
    assert plan(chosen).bytes_to_read > 0
    record = run(plan(chosen), tmp_path / "out")
    assert record.passes == 2
    found = merged_everyhow(tmp_path, "metagpt", "a")
    close(found["norm.weight"], model["norm.weight"])
