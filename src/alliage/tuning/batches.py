"""Which examples share a batch: texts of like length, which need little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from alliage.data.encoding import Features, lengths

# Batches that are sorted together: more pad less, fewer mix more.
_POOL = 50
_POOLS = 4  # at least, where there are as many batches


def long_first(features: Sequence[Features]) -> Sequence[Features]:
    """Encoded examples from long to short, for passes in which their order does not matter.

    What is encoded lazily stays as it is.
    """
    if not isinstance(features, list):
        return features
    order = np.argsort(-np.array(lengths(features)), kind="stable")
    return [features[index] for index in order]


class GroupedSampler(torch.utils.data.Sampler[int]):
    """Another `grouped_order` in each epoch, decided by the seed and the epoch alone."""

    def __init__(
        self, sizes: ArrayLike, batch_size: int, seed: int, epoch: Callable[[], int]
    ) -> None:
        """Sample examples.

        Args:
            sizes: the length of each.
            batch_size: examples that are padded together.
            seed: of the order.
            epoch: says which epoch begins.
        """
        self._sizes = np.asarray(sizes)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self._seed, self._epoch()])
        return iter(grouped_order(self._sizes, self._batch_size, generator).tolist())


def grouped_order(
    sizes: ArrayLike, batch_size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """An order at random in which each batch holds examples of like length.

    Examples are shuffled, cut into pools of up to 50 batches, sorted inside each pool, and the
    batches shuffled; the last batch may be smaller.

    Args:
        sizes: the length of each example, [n].
        batch_size: examples in a batch.
        generator: source of the randomness.

    Returns:
        indices of all examples, [n].
    """
    sizes = np.asarray(sizes)
    order = generator.permutation(len(sizes))
    pool = batch_size * max(1, min(_POOL, len(order) // (_POOLS * batch_size)))
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        order[start : start + pool] = part[np.argsort(-sizes[part], kind="stable")]
    whole = len(order) // batch_size
    batches = order[: whole * batch_size].reshape(whole, batch_size)
    return np.concatenate([generator.permutation(batches).reshape(-1), order[whole * batch_size :]])
