"""On numbers worked out by hand, and against the dense projections of the paper."""

import numpy as np
import pytest
import torch

from alliage.merging import core_space, get_method, ties
from tests.merging.tensors import close

# Both updates write along e₁ and read along orthogonal directions, v = (2, 1)/√5 and
# w = (−1, 2)/√5: the cores are (0, √5) and (2√5, 0), up to signs, and do not touch one another.
E1 = torch.tensor([[1.0], [0.0]])
B = [E1, E1]
A = [torch.tensor([[2.0, 1.0]]), torch.tensor([[-2.0, 4.0]])]


def product(factors):
    return factors[0] @ factors[1]


def test_by_hand():
    given = {"density": 1.0, "combine": "sum"}
    close(product(core_space(B, A, rule="ties", **given)), [[0.0, 5.0], [0.0, 0.0]])
    # TIES on the updates themselves: 2 and −2 cancel, and most signs are positive; 1 + 4
    dense = ties(torch.stack([b @ a for b, a in zip(B, A, strict=True)]), **given)
    close(dense, [[2.0, 5.0], [0.0, 0.0]])
    # of two coordinates the larger stays in each core
    trimmed = core_space(B, A, rule="ties", density=0.5, kept="count")
    close(product(trimmed), [[0.0, 5.0], [0.0, 0.0]])


def test_a_linear_rule_is_that_rule_on_the_updates():
    close(product(core_space(B, A)), [[0.0, 2.0], [0.0, 0.0]])  # task arithmetic, 0.4·(0, 5)
    weights = torch.tensor([1.0, -1.0])
    close(product(core_space(B, A, scale=1.0, weight=weights)), [[4.0, -3.0], [0.0, 0.0]])


RULES = [
    ("ties", {"density": 0.3}),
    ("task_arithmetic", {"weight": torch.tensor([1.0, -0.5, 2.0])}),
    ("magnitude_prune", {"density": 0.4}),
]


@pytest.mark.parametrize(("rule", "parameters"), RULES)
@pytest.mark.parametrize("shape", [(20, 30), (5, 30), (30, 5), (5, 4)])
def test_it_is_the_papers_algorithm(shape, rule, parameters):
    draw = torch.Generator().manual_seed(3)
    ranks = (3, 1, 4)
    B = [torch.randn(shape[0], r, generator=draw) for r in ranks]
    A = [torch.randn(r, shape[1], generator=draw) for r in ranks]
    left = np.linalg.svd(torch.cat(B, dim=1).double().numpy(), full_matrices=False)[0]
    right = np.linalg.svd(torch.cat(A).double().numpy(), full_matrices=False)[2]
    cores = [
        left.T @ (b.double() @ a.double()).numpy() @ right.T for b, a in zip(B, A, strict=True)
    ]
    stacked = torch.tensor(np.stack(cores), dtype=torch.float32)
    expected = left @ get_method(rule)(stacked, **parameters).double().numpy() @ right
    merged = core_space(B, A, rule=rule, **parameters)
    assert merged[0].shape[1] == min(8, *shape)
    np.testing.assert_allclose(product(merged).numpy(), expected, atol=2e-5)


def test_balanced_bases_do_not_depend_on_the_factors():
    draw = torch.Generator().manual_seed(5)
    B, A = torch.randn(2, 9, 3, generator=draw), torch.randn(2, 3, 8, generator=draw)
    turn = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 2.0]])
    turned = B @ turn, torch.linalg.inv(turn) @ A
    given = {"rule": "ties", "density": 0.3}
    plain = product(core_space(B, A, **given)), product(core_space(*turned, **given))
    assert not torch.allclose(*plain, rtol=0.1, atol=0.1)  # the paper's do
    even = [product(core_space(*pair, balanced=True, **given)) for pair in ((B, A), turned)]
    torch.testing.assert_close(*even, rtol=1e-4, atol=1e-5)


def test_adapters_without_the_module_are_zero():
    none = torch.zeros(2, 0), torch.zeros(0, 2)
    for balanced in (False, True):
        merged = core_space([E1, none[0]], [A[0], none[1]], rule="average", balanced=balanced)
        close(product(merged), [[1.0, 0.5], [0.0, 0.0]])
        nothing = core_space([none[0]] * 2, [none[1]] * 2, balanced=balanced)
        assert nothing[0].shape == (2, 0)
