"""How far a mean may be off: the bootstrap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_AT_ONCE = 1 << 22  # weights of draws in memory


def mean_interval(
    values: npt.ArrayLike, level: float = 0.95, *, draws: int = 2000, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Percentile bootstrap interval of means over the last axis (Efron 1979).

    Values are drawn again with replacement, the same places for every row. With few values the
    interval is too narrow: with 5 it holds the mean in some 85 % of cases instead of 95 %.

    Args:
        values: [..., m]; NaN is left out of its row.
        level: of confidence, in (0, 1).
        draws: how often.
        seed: of the draws.

    Returns:
        low and high [...], in the unit of the values; NaN where a row has fewer than two values.
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")
    table = np.asarray(values, dtype=np.float64)
    rows = table.reshape(-1, table.shape[-1])
    defined = ~np.isnan(rows)
    filled = np.where(defined, rows, 0.0)
    m = rows.shape[1]
    generator = np.random.default_rng(seed)
    means = np.empty((draws, len(rows)))
    step = max(_AT_ONCE // max(m, 1), 1)
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        weights = generator.multinomial(m, np.full(m, 1 / m), stop - start).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a draw without any defined value
            means[start:stop] = (weights @ filled.T) / (weights @ defined.T)
    edges = (1 - level) / 2
    low, high = np.full((2, len(rows)), np.nan)
    enough = defined.sum(axis=1) > 1
    if enough.any():
        low[enough], high[enough] = np.nanquantile(means[:, enough], [edges, 1 - edges], axis=0)
    shape = table.shape[:-1]
    return low.reshape(shape), high.reshape(shape)
