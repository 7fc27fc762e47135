"""The geometric median on points worked out by hand, against a search, and streamed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from alliage.errors import UsageError
from alliage.merging import get_method, parse_recipe
from tests.merging.methods.through_engine import SHAPES, checkpoints, merged_everyhow
from tests.merging.tensors import close

geometric_median = get_method("geometric_median")


def test_worked_out_by_hand():
    # the centre of a square, and of a square with its centre
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    close(geometric_median(square), [1.0, 1.0])
    # three on a line: the one between the others, exactly
    line = torch.tensor([[0.0, 1.0], [1.0, 3.0], [10.0, 21.0]])
    assert torch.equal(geometric_median(line), line[1])
    # Fermat's point of a right isosceles triangle sees all sides at 120°: (a, a) with
    # a = (3 − √3)/6
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    close(geometric_median(triangle), [(3 - math.sqrt(3)) / 6] * 2)
    # an angle of 120° or more is Fermat's point itself
    blunt = torch.tensor([[0.0, 0.0], [4.0, 1.0], [-4.0, 1.0]])
    assert torch.equal(geometric_median(blunt), blunt[0])


def test_a_majority_is_not_carried_away():
    models = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1e6, -1e6]])
    assert torch.equal(geometric_median(models), models[0])
    assert torch.equal(geometric_median(models[:1].expand(3, -1)), models[0])


def test_two_models_and_weights():
    pair = torch.tensor([[0.0, 2.0], [4.0, 0.0]])
    close(geometric_median(pair), [2.0, 1.0])  # all between them are as good: the middle
    assert torch.equal(geometric_median(pair, weight=[2.0, 1.0]), pair[0])
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    doubled = torch.cat([triangle, triangle[1:2]])
    close(geometric_median(triangle, weight=[1.0, 2.0, 1.0]), geometric_median(doubled))


@given(st.integers(3, 6), st.integers(2, 4), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_no_point_has_a_smaller_sum_of_distances(models, size, seed):
    points = np.random.default_rng(seed).standard_normal((models, size))

    def cost(place):
        return np.linalg.norm(points - place, axis=1).sum()

    found = geometric_median(torch.from_numpy(points).float()).double().numpy()
    starts = [points.mean(axis=0), found]
    best = min(minimize(cost, start, method="Nelder-Mead", tol=1e-10).fun for start in starts)
    assert cost(found) <= best + 1e-5


@pytest.mark.parametrize("over", ["model", "module", "tensor"])
def test_what_is_one_vector(tmp_path, over):
    models = checkpoints(tmp_path)[1:]
    found = merged_everyhow(tmp_path, "geometric_median", base=None, parameters={"over": over})
    groups = {
        "model": [list(SHAPES)],
        "module": [["layers.0.weight", "layers.0.bias"]]
        + [[name] for name in SHAPES if not name.startswith("layers.0")],
        "tensor": [[name] for name in SHAPES],
    }
    for group in groups[over]:
        vectors = torch.stack([torch.cat([m[name].flatten() for name in group]) for m in models])
        expected = geometric_median(vectors)
        for name, part in zip(
            group, expected.split([models[0][n].numel() for n in group]), strict=True
        ):
            close(found[name].flatten(), part)


def test_bad_input():
    with pytest.raises(UsageError, match=r"parameters\.over: must be one of model, module, tensor"):
        parse_recipe(
            {"method": "geometric_median", "models": ["a"], "parameters": {"over": "layer"}}
        ).settings()
