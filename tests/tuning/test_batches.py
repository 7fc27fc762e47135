from __future__ import annotations

import numpy as np

from alliage.tuning.batches import GroupedSampler, grouped_order, long_first


def padded(sizes, order, batch_size):
    """Cells of all batches, padded to their longest."""
    batches = [
        sizes[order[start : start + batch_size]] for start in range(0, len(order), batch_size)
    ]
    return sum(len(batch) * batch.max() for batch in batches)


def test_every_example_comes_once_and_little_is_padded():
    generator = np.random.default_rng(0)
    sizes = generator.integers(5, 120, 4003)
    order = grouped_order(sizes, 16, generator)
    assert sorted(order) == list(range(4003))
    assert padded(sizes, order, 16) < 1.02 * sizes.sum()
    assert padded(sizes, generator.permutation(4003), 16) > 1.7 * sizes.sum()


def test_batches_come_in_no_order_of_length():
    sizes = np.arange(8000)
    order = grouped_order(sizes, 8, np.random.default_rng(1))
    means = sizes[order].reshape(-1, 8).mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.1


def test_few_examples_share_other_batches_in_each_epoch():
    """Eight in batches of four: were all sorted together, there would be two batches for ever."""
    samplers = [GroupedSampler(np.arange(8), 4, seed=0, epoch=lambda n=n: n) for n in range(20)]
    seen = set()
    for sampler in samplers:
        order = list(sampler)
        assert order == list(sampler)
        seen.add(frozenset(order[:4]))
    assert len(seen) > 10


def test_long_examples_come_first_where_order_does_not_matter():
    features = [{"input_ids": [0] * size} for size in (2, 5, 2, 9)]
    assert [len(row["input_ids"]) for row in long_first(features)] == [9, 5, 2, 2]
