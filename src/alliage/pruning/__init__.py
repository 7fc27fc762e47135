"""A shallower checkpoint: strategies that choose layers, and the surgery that removes the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alliage.checkpoints import Checkpoint
from alliage.pruning.families import FAMILIES, Family
from alliage.pruning.planning import PruningPlan, plan
from alliage.pruning.scores import read_scores
from alliage.pruning.strategies import STRATEGIES, keep_layers
from alliage.pruning.surgery import PruningRecord, opened, remove_layers, run

__all__ = [
    "FAMILIES",
    "STRATEGIES",
    "Family",
    "PruningPlan",
    "PruningRecord",
    "keep_layers",
    "plan",
    "prune",
    "read_scores",
    "remove_layers",
    "run",
]


def prune(
    model: str | Path | Checkpoint,
    out: str | Path,
    *,
    strategy: str | None = None,
    keep: int | None = None,
    keep_layers: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
) -> PruningRecord:
    """Remove layers of a model, chosen by a strategy or one by one.

    Args:
        model: a full model: a folder or hub id with its config.json.
        out: the new folder; it must not exist.
        strategy: one of `STRATEGIES`, together with `keep`.
        keep: how many layers stay.
        keep_layers: instead of a strategy: the layers that stay, ascending, from 0.
        scores: for strategies by score, one number for each layer, better is higher.

    Raises:
        UsageError: an unknown strategy, impossible layers or scores, or `out` exists.
        AlliageError: the model cannot lose these layers. Either names every problem found.
    """
    with opened(model) as checkpoint:
        made = plan(
            checkpoint,
            strategy=strategy, keep=keep, scores=scores, keep_layers=keep_layers, out=out,
        )  # fmt: skip
        return run(made, out)
