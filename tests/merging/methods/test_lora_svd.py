"""On numbers worked out by hand, and against numpy's dense SVD."""

from functools import partial

import numpy as np
import pytest
import torch

from alliage.errors import UsageError
from alliage.merging import describe, lora_svd, parse_recipe
from tests.merging import tensors

E1, E2 = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
# diag(3, 0) and diag(0, 2): together 3 and 2, squares 9 and 4 of 13
B, A = [E1, E2], [3 * E1.T, 2 * E2.T]

close = partial(tensors.close, rtol=1e-6, atol=1e-6)


def product(factors):
    return factors[0] @ factors[1]


def test_by_hand():
    close(product(lora_svd(B, A, rank=2)), [[3.0, 0.0], [0.0, 2.0]])
    close(product(lora_svd(B, A)), [[3.0, 0.0], [0.0, 0.0]])  # the largest adapter has rank 1
    close(product(lora_svd(B, A, weight=[1.0, -2.0])), [[0.0, 0.0], [0.0, -4.0]])
    merged_B, merged_A = lora_svd(B, A, rank=1)
    close(merged_B.abs(), [[3**0.5], [0.0]])  # the root of the singular value in each
    close(merged_A.abs(), [[3**0.5, 0.0]])


def test_energy_by_hand():
    assert lora_svd(B, A, energy=9 / 13)[0].shape == (2, 1)
    assert lora_svd(B, A, energy=9.01 / 13)[0].shape == (2, 2)
    assert lora_svd(B, A, energy=9.01 / 13, rank=1)[0].shape == (2, 1)


@pytest.mark.parametrize("rank", [0, 1, 3, 6, 50])
@pytest.mark.parametrize("shape", [(9, 12), (4, 30), (30, 4)])
def test_it_is_the_dense_svd_cut(shape, rank):
    draw = torch.Generator().manual_seed(1)
    ranks, weights = (3, 1, 2), [0.5, 2.0, -1.0]
    B = [torch.randn(shape[0], r, generator=draw) for r in ranks]
    A = [torch.randn(r, shape[1], generator=draw) for r in ranks]
    dense = sum(
        w * b.double().numpy() @ a.double().numpy() for w, b, a in zip(weights, B, A, strict=True)
    )
    U, S, Vt = np.linalg.svd(dense, full_matrices=False)
    kept = rank or 3
    expected = (U[:, :kept] * S[:kept]) @ Vt[:kept]
    merged = lora_svd(B, A, weight=weights, rank=rank)
    assert merged[0].shape[1] == min(kept, 6, *shape)
    np.testing.assert_allclose(product(merged).numpy(), expected, atol=1e-5)


def test_what_repeats_adds_no_rank():
    draw = torch.Generator().manual_seed(2)
    b, a = torch.randn(8, 2, generator=draw), torch.randn(2, 8, generator=draw)
    assert lora_svd([b, b, b], [a, a, a], rank=6)[0].shape == (8, 2)
    assert lora_svd([b, b], [a, a], weight=[1.0, -1.0], rank=4)[0].shape == (8, 0)


def test_its_declared_rank():
    rank = describe("lora_svd").rank
    assert rank([2, 3, 0], 100, 100, rank=0, energy=1.0) == (3, True)
    assert rank([2, 3, 0], 100, 100, rank=0, energy=0.5) == (5, False)
    assert rank([2, 3, 0], 100, 100, rank=4, energy=1.0) == (4, True)
    assert rank([2, 3], 4, 100, rank=9, energy=1.0) == (4, True)


@pytest.mark.parametrize("parameters", [{"rank": -1}, {"rank": 1.5}, {"energy": 0}, {"energy": 2}])
def test_impossible_parameters(parameters):
    content = {"method": "lora_svd", "models": ["a"], "parameters": parameters}
    with pytest.raises(UsageError, match=next(iter(parameters))):
        parse_recipe(content).settings()
