"""Which layers to keep: by their position in the stack or by a score for each.

Layers count from 0 at the input. The names say what is *kept*: "top" is avoided, because some
authors mean by it the layers near the output and others the first ones.

Sources: Sajjad et al., "On the Effect of Dropping Layers of Pre-trained Transformer Models",
arXiv:2004.03844. Departure: where other than half of the layers go, its alternate dropping takes
every second layer from the output on and leaves the rest whole; here the kept layers are spread
evenly over the whole stack. Both agree where half of them go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alliage.errors import Problem, UsageError, nearest


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to choose.

    Attributes:
        choose: (n_layers, keep, scores) -> the kept layers, in any order.
        meaning: what is kept, one phrase.
        by_score: whether it needs a score for each layer.
        misfit: (n_layers, keep) -> why this number cannot be kept, or nothing.
    """

    choose: Callable[[int, int, Sequence[float]], Sequence[int]]
    meaning: str
    by_score: bool = False
    misfit: Callable[[int, int], str] = lambda _n_layers, _keep: ""


def keep_layers(
    strategy: str, n_layers: int, keep: int, scores: Sequence[float] | None = None
) -> list[int]:
    """Choose the layers that a pruned model keeps.

    Args:
        strategy: one of `STRATEGIES`.
        n_layers: depth of the whole model, at least 1.
        keep: how many layers stay, from 1 to `n_layers`.
        scores: for the strategies by score, one finite number for each layer, better is higher.
            Of equal scores the layer nearer to the input counts as better.

    Returns:
        `keep` layers in ascending order.

    Raises:
        UsageError: an unknown strategy, or numbers that it cannot work with; all of them.

    >>> keep_layers("alternate-even", 12, 6)
    [0, 2, 4, 6, 8, 10]
    >>> keep_layers("best-n", 4, 2, scores=[0.1, 0.9, 0.3, 0.8])
    [1, 3]
    """
    chosen = STRATEGIES.get(strategy)
    problems = []
    if chosen is None:
        problems.append(
            Problem("strategy", f"no strategy named {strategy!r}.", nearest(strategy, STRATEGIES))
        )
    in_range = isinstance(keep, int) and not isinstance(keep, bool) and 1 <= keep <= n_layers
    if not in_range:
        problems.append(
            Problem("keep", f"expected a whole number from 1 to {n_layers}, found {keep!r}.")
        )
    elif chosen is not None and (why := chosen.misfit(n_layers, keep)):
        problems.append(Problem("keep", f"{strategy} cannot keep {keep} of {n_layers}: {why}."))
    if chosen is not None:
        problems += _score_problems(strategy, chosen, n_layers, scores)
    if problems:
        raise UsageError(problems)
    assert chosen is not None
    return sorted(chosen.choose(n_layers, keep, scores or ()))


def _score_problems(
    name: str, strategy: Strategy, n_layers: int, scores: Sequence[float] | None
) -> list[Problem]:
    if not strategy.by_score:
        if scores is None:
            return []
        scored = " or ".join(key for key, each in STRATEGIES.items() if each.by_score)
        return [Problem("scores", f"{name} chooses by position.", f"Omit them, or use {scored}.")]
    if scores is None:
        return [Problem("scores", f"{name} needs a score for each of the {n_layers} layers.")]
    if len(scores) != n_layers:
        return [Problem("scores", f"expected {n_layers}, one for each layer, found {len(scores)}.")]
    return [
        Problem(f"scores: layer {layer}", f"expected a finite number, found {score}.")
        for layer, score in enumerate(scores)
        if not math.isfinite(score)
    ]


def _best(n_layers: int, keep: int, scores: Sequence[float]) -> list[int]:
    return sorted(range(n_layers), key=lambda layer: (-scores[layer], layer))[:keep]


def _inner_misfit(n_layers: int, keep: int) -> str:
    odd = (n_layers - keep) % 2
    return f"{n_layers - keep} layers cannot be taken equally from both ends" if odd else ""


def _outer_misfit(n_layers: int, keep: int) -> str:
    odd = keep % 2 and keep < n_layers
    return "an odd number cannot be shared equally between both ends" if odd else ""


STRATEGIES: Mapping[str, Strategy] = {
    "first": Strategy(
        lambda _, keep, __: range(keep),
        "the layers nearest to the input",
    ),
    "last": Strategy(
        lambda n, keep, _: range(n - keep, n),
        "the layers nearest to the output",
    ),
    "alternate-even": Strategy(
        lambda n, keep, _: [i * n // keep for i in range(keep)],
        "evenly spread layers, layer 0 among them: 0, 2, 4, ... for half of them",
    ),
    "alternate-odd": Strategy(
        lambda n, keep, _: [n - 1 - i * n // keep for i in range(keep)],
        "evenly spread layers, the last among them: 1, 3, 5, ... for half of an even number",
    ),
    "symmetric-inner": Strategy(
        lambda n, keep, _: range((n - keep) // 2, (n + keep) // 2),
        "the middle; as many are removed at either end",
        misfit=_inner_misfit,
    ),
    "symmetric-outer": Strategy(
        lambda n, keep, _: [*range((keep + 1) // 2), *range(n - keep // 2, n)],
        "as many at either end; the middle is removed",
        misfit=_outer_misfit,
    ),
    "best-n": Strategy(
        _best,
        "the layers with the highest scores",
        by_score=True,
    ),
    # The complement of "best-n", and so the same layers: studies count it by what is removed.
    "delete-worst-n": Strategy(
        _best,
        "all but the layers with the lowest scores",
        by_score=True,
    ),
}
