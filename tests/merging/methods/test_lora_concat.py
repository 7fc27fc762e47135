"""On numbers worked out by hand, and against dense sums."""

import numpy as np
import torch

from alliage.merging import lora_concat


def test_by_hand():
    B = [torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])]
    A = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])]
    # 2·[[1, 2], [0, 0]] − [[0, 1], [3, 0]]
    merged_B, merged_A = lora_concat(B, A, weight=torch.tensor([2.0, -1.0]))
    assert torch.equal(merged_B, torch.tensor([[2.0, 0.0, -1.0], [0.0, -1.0, 0.0]]))
    assert torch.equal(merged_A, torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]))
    assert torch.equal(merged_B @ merged_A, torch.tensor([[2.0, 3.0], [-3.0, 0.0]]))


def test_an_adapter_without_the_module_adds_nothing():
    B = [torch.ones(3, 2), torch.zeros(3, 0)]
    A = [torch.ones(2, 4), torch.zeros(0, 4)]
    merged = lora_concat(B, A, weight=[1.0, 5.0])
    assert torch.equal(merged[0], B[0])
    assert torch.equal(merged[1], A[0])


def test_the_sum_has_no_cross_terms():
    draw = torch.Generator().manual_seed(0)
    B = [torch.randn(9, rank, generator=draw) for rank in (1, 4, 2)]
    A = [torch.randn(rank, 6, generator=draw) for rank in (1, 4, 2)]
    weights = [0.3, 1.0, -2.0]
    dense = sum(
        w * b.double().numpy() @ a.double().numpy() for w, b, a in zip(weights, B, A, strict=True)
    )
    merged = lora_concat(B, A, weight=weights)
    found = merged[0].double().numpy() @ merged[1].double().numpy()
    np.testing.assert_allclose(found, dense, rtol=1e-5, atol=1e-6)
