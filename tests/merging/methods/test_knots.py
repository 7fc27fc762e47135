"""On numbers worked out by hand, and against the dense SVD of the paper."""

import numpy as np
import pytest
import torch

from alliage.merging import get_method, knots, ties
from alliage.merging.rules import by_rule
from tests.merging.tensors import close

# Both updates write along u = (0.6, 0.8): [u·(3, 4) | u·(4, −2)] = u·(3, 4, 4, −2), so U = ±u,
# ΣV₁ = ±(3, 4) and ΣV₂ = ±(4, −2).
U = torch.tensor([[0.6], [0.8]])
B = [U, 2 * U]
A = [torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, -1.0]])]


def product(factors):
    return factors[0] @ factors[1]


def test_by_hand():
    # all stay: the mean of 3 and 4, and of what agrees with 4 − 2 > 0 only 4
    close(product(knots(B, A, density=1.0)), [[2.1, 2.4], [2.8, 3.2]])
    # of two coordinates one stays in each: 4 and 4
    merged = knots(B, A, density=0.5, kept="count")
    close(product(merged), [[2.4, 2.4], [3.2, 3.2]])
    close(merged[0].abs(), [[0.6], [0.8]])
    # dense TIES keeps 3.2 and the first 2.4 of u·(3, 4), and 3.2 and 2.4 of u·(4, −2)
    dense = ties(torch.stack([b @ a for b, a in zip(B, A, strict=True)]), density=0.5, kept="count")
    close(dense, [[2.4, 2.4], [3.2, 3.2]])


def test_a_linear_rule_is_that_rule_on_the_updates():
    found = product(knots(B, A, rule="task_arithmetic", scale=1.0, weight=torch.tensor([1.0, 2.0])))
    close(found, [[6.6, 0.0], [8.8, 0.0]])  # u·((3, 4) + 2·(4, −2)) = u·(11, 0)


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ("ties", {"density": 0.3}),
        ("ties", {"density": 1.0, "combine": "sum", "scale": 0.6}),
        ("task_arithmetic", {"weight": torch.tensor([1.0, -0.5, 2.0])}),
        ("magnitude_prune", {"density": 0.4}),
    ],
)
@pytest.mark.parametrize("shape", [(20, 30), (5, 30), (30, 5)])
def test_it_is_the_papers_dense_algorithm(shape, rule, parameters):
    draw = torch.Generator().manual_seed(3)
    ranks = (3, 1, 4)
    B = [torch.randn(shape[0], r, generator=draw) for r in ranks]
    A = [torch.randn(r, shape[1], generator=draw) for r in ranks]
    dense = [b.double().numpy() @ a.double().numpy() for b, a in zip(B, A, strict=True)]
    left, S, Vt = np.linalg.svd(np.concatenate(dense, axis=1), full_matrices=False)
    kept = S > 1e-5  # the authors'
    aligned = np.split((S[:, None] * Vt)[kept], len(dense), axis=1)
    stacked = torch.tensor(np.stack(aligned), dtype=torch.float32)
    expected = left[:, kept] @ get_method(rule)(stacked, **parameters).double().numpy()
    found = product(knots(B, A, rule=rule, **parameters))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_repeated_updates_bring_no_coordinates_of_rounding_errors():
    draw = torch.Generator().manual_seed(4)
    b, a = torch.randn(12, 2, generator=draw), torch.randn(2, 10, generator=draw)
    merged = knots([b, b, 0.5 * b], [a, a, a], density=1.0)
    assert merged[0].shape == (12, 2)
    torch.testing.assert_close(product(merged), b @ a * 2.5 / 3, rtol=1e-4, atol=1e-5)


def test_a_random_rule_takes_the_draws_given():
    def apply(rule, tensors, parameters):
        uniform = torch.tensor([0.9, 0.1])[:, None, None].expand(tensors.shape)
        return by_rule(rule, tensors, parameters | {"uniform": uniform})

    given = {"rule": "dare_linear", "density": 0.5}
    found = product(knots(B, A, apply=apply, **given))
    close(found, [[4.8, -2.4], [6.4, -3.2]])  # the first drops out, the second is doubled
    own = knots(B, A, **given)
    assert torch.equal(own[1], knots(B, A, **given)[1])  # by the rule's own seed


def test_adapters_without_the_module_are_zero():
    none = torch.zeros(2, 0), torch.zeros(0, 2)
    merged = knots([B[0], none[0]], [A[0], none[1]], rule="average")
    close(product(merged), [[0.9, 1.2], [1.2, 1.6]])
    assert knots([none[0]] * 2, [none[1]] * 2)[0].shape == (2, 0)
