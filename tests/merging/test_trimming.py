"""Which entries stay, by hand; thresholds of several ranks for each vector against a sort."""

import pytest
import torch

from alliage.merging.thresholds import RankThresholds
from alliage.merging.trimming import keep_largest, stays, trim_thresholds, whole_thresholds

VECTORS = torch.tensor([[1.0, -3.0, 2.0, -2.0, 2.0], [0.0, 4.0, -4.0, 4.0, 0.5]])


def test_what_is_at_least_the_threshold_stays():
    expected = [[False, True, True, True, True], [False, True, True, True, False]]
    assert stays(VECTORS, [2.0, 4.0], None).tolist() == expected
    assert stays(VECTORS.reshape(2, 1, 5), [2.0, 4.0], None).tolist() == [[row] for row in expected]


def test_of_what_equals_the_threshold_the_first_stay():
    # one of three twos, and all fours
    expected = [[False, True, True, False, False], [False, True, True, True, False]]
    assert stays(VECTORS, [2.0, 4.0], [1, -1]).tolist() == expected
    assert stays(VECTORS, torch.tensor([2.0, 4.0]), [0, 2]).tolist() == [
        [False, True, False, False, False], [False, True, True, False, False],
    ]  # fmt: skip


def test_where_all_stays_the_vectors_are_themselves():
    assert keep_largest(VECTORS, [0.0, 0.0], None) is VECTORS
    assert keep_largest(VECTORS, [0.0, 4.0], None)[1].tolist() == [0.0, 4.0, -4.0, 4.0, 0.0]


@pytest.mark.parametrize("rank", range(7))
def test_whole_vectors_keep_exactly_their_entries_of_some_rank_or_more(rank):
    limits, quota = whole_thresholds(VECTORS, [rank, rank])
    kept = stays(VECTORS, limits, quota)
    assert kept.sum(dim=1).tolist() == [min(5, 6 - rank)] * 2
    for vector, chosen in zip(VECTORS.abs(), kept, strict=True):
        if chosen.any() and not chosen.all():
            assert vector[chosen].min() >= vector[~chosen].max()


def test_a_share_of_the_entries_stays():
    # two of five: 3 and one of three twos; two of three fours
    limits, quota = trim_thresholds(VECTORS, 0.4, "count")
    assert (limits.tolist(), quota) == ([2.0, 4.0], [1, 2])
    limits, quota = trim_thresholds(VECTORS, torch.tensor([0.4, 1.0]), "count")
    assert (limits.tolist(), quota) == ([2.0, 0.0], [1, -1])
    limits, quota = trim_thresholds(VECTORS, 0.4, "kth")  # the third smallest and its equals
    assert (limits.tolist(), quota) == ([2.0, 4.0], None)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_first_pass_finds_several_ranks_of_each_vector(sampled):
    vectors = torch.randn(2, 9001, generator=torch.Generator().manual_seed(0)).round(decimals=2)
    ranks = [1, 17, 4000, 9001, 9002, 0]  # of the first vector and the second in turn
    reduction = RankThresholds(ranks, 9001, exact=True)
    if sampled:
        reduction.sample(vectors[:, ::7])
    result = reduction.result()
    while result is None:
        for place, block in enumerate(torch.split(vectors, 4096, dim=1)):
            reduction.update(block, place)
        result = reduction.result()
    ordered = vectors.abs().sort(dim=1).values
    expected = [ordered[k % 2, rank - 1].item() for k, rank in enumerate(ranks[:4])]
    assert result["thresholds"] == [*expected, float("inf"), 0.0]
    # of each vector's entries exactly those of the rank or more stay, over all blocks
    quotas = torch.tensor(result["quota"])
    for number, rank in enumerate(ranks[:4]):
        of = vectors[number % 2]
        larger = int((of.abs() > expected[number]).sum())
        equal = int((of.abs() == expected[number]).sum())
        left = int(quotas[:, number].sum()) if (quotas[:, number] >= 0).all() else equal
        assert larger + left == 9001 - rank + 1
