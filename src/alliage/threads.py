"""Who computes in parallel: our own workers, or torch's threads inside one operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep torch to one thread while our own workers share the cores.

    Torch's threads beside them would only compete; and how a sum is split among threads would show
    in its last digits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
