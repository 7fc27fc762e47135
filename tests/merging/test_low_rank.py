"""Against dense decompositions by numpy."""

import numpy as np
import pytest
import torch

from alliage.merging.low_rank import (
    common_left_basis,
    joined,
    left_basis,
    split_evenly,
    thin_svd,
)


def pairs(shape, ranks, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (
        [torch.randn(shape[0], r, generator=draw) for r in ranks],
        [torch.randn(r, shape[1], generator=draw) for r in ranks],
    )


@pytest.mark.parametrize("shape", [(20, 15), (3, 40), (40, 3)])
def test_thin_svd_is_the_dense_one(shape):
    B, A = joined(*pairs(shape, (2, 3)))
    U, S, Vt = thin_svd(B, A)
    dense = B.numpy() @ A.numpy()
    count = min(5, *shape)
    np.testing.assert_allclose(S.numpy(), np.linalg.svd(dense)[1][:count], rtol=1e-12)
    np.testing.assert_allclose((U * S).numpy() @ Vt.numpy(), dense, atol=1e-12)
    for side in (U, Vt.T):
        np.testing.assert_allclose(side.T @ side, np.eye(count), atol=1e-12)
    even_B, even_A = split_evenly(U, S, Vt)
    assert even_B.dtype == torch.float32
    np.testing.assert_allclose((even_B @ even_A).numpy(), dense, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(even_B.norm(dim=0), even_A.norm(dim=1), rtol=1e-6)


def test_what_cancels_or_repeats_has_no_rank():
    (b,), (a,) = pairs((50, 60), (4,))
    assert thin_svd(*joined([b, b], [a, a]))[1].shape == (4,)
    assert thin_svd(*joined([b, -b], [a, a]))[1].shape == (0,)
    small = 1e-9 * b.roll(1, 0)
    assert thin_svd(*joined([b, small], [a, a.roll(1, 1)]))[1].shape == (8,)
    assert left_basis(torch.zeros(5, 3, dtype=torch.float64)).shape == (5, 0)


@pytest.mark.parametrize("shape", [(20, 15), (3, 40), (40, 3)])
def test_the_common_basis_is_that_of_the_updates_side_by_side(shape):
    B, A = pairs(shape, (2, 0, 3), seed=1)
    found = common_left_basis(B, A)
    dense = [b.double().numpy() @ a.double().numpy() for b, a in zip(B, A, strict=True)]
    left, S, _ = np.linalg.svd(np.concatenate(dense, axis=1), full_matrices=False)
    left = left[:, S > 1e-5]
    assert found.shape == left.shape
    np.testing.assert_allclose(np.abs(found.numpy().T @ left), np.eye(left.shape[1]), atol=1e-10)
