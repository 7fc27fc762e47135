"""On numbers worked out by hand, and against the authors' algorithm in numpy."""

from functools import partial

import numpy as np
import pytest
import torch

from alliage.merging import robust_merge
from tests.merging import tensors

# Half of four entries: from the 2nd smallest magnitude on. |A₁| 0.5 1 2 4: 1 and more stay, which
# takes a fifth of its second row: s₁ = (1, 1.25). A₂ loses a zero: s₂ = (1, 1). B₁ loses 0.5.
A = torch.tensor([[[4.0, 1.0], [0.5, -2.0]], [[2.0, 0.0], [1.0, 3.0]]])
B = torch.tensor([[[1.0, 3.0], [-2.0, 0.5]], [[2.0, 0.0], [0.0, 4.0]]])

close = partial(tensors.close, rtol=1e-6, atol=0)


def test_by_hand():
    merged_B, merged_A = robust_merge(B, A, weight=1.0, density=0.5, share=1.0)
    close(merged_A, [[6.0, 1.0], [1.0, 1.0]])
    # columns: ((1, −2) + (2, 0)) / 2 and (1.25·(3, 0) + (0, 4)) / 2.25
    close(merged_B, [[1.5, 5 / 3], [-1.0, 16 / 9]])
    # the larger half of the rows sets the least scale: s₁ = (1.25, 1.25)
    merged_B, _ = robust_merge(B, A, weight=1.0, density=0.5, share=0.5)
    close(merged_B, [[3.25 / 2.25, 5 / 3], [-2.5 / 2.25, 16 / 9]])
    # 2 on each factor by default
    doubled = robust_merge(B, A, density=0.5, share=0.5)
    close(doubled[0], (2 * merged_B).tolist())
    close(doubled[1], [[12.0, 2.0], [2.0, 2.0]])


def authors(B, A, density, share):
    """The published code's steps, in numpy and float64, for one module."""
    found = []
    for factors in (A, B):
        flat = np.abs(factors.reshape(len(factors), -1))
        kth = np.sort(flat, axis=1)[:, int(flat.shape[1] * (1 - density)) - 1]
        found.append(factors * (np.abs(factors) >= kth[:, None, None]))
    pruned_A, pruned_B = found
    scale = np.abs(A).sum(-1) / np.abs(pruned_A).sum(-1)
    ordered = np.sort(scale, axis=1)
    least = ordered[:, int(scale.shape[1] * (1 - share))]
    scale = np.clip(scale, least[:, None], ordered[:, -1:])[:, None, :]
    return (2 * scale * pruned_B).sum(0) / scale.sum(0), (2 * pruned_A).sum(0)


@pytest.mark.parametrize(("density", "share"), [(0.2, 0.2), (0.5, 0.4), (0.7, 0.9)])
def test_it_is_the_authors_algorithm(density, share):
    draw = torch.Generator().manual_seed(0)
    B, A = torch.randn(3, 11, 8, generator=draw), torch.randn(3, 8, 13, generator=draw)
    found = robust_merge(B, A, density=density, share=share)
    expected = authors(B.double().numpy(), A.double().numpy(), density, share)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)


def test_rows_that_are_zero_stay_zero():
    zero = torch.zeros(1, 2, 2)
    for factor in robust_merge(B[:1], zero):
        assert factor.isfinite().all()
    assert not robust_merge(B[:1], zero)[1].any()
