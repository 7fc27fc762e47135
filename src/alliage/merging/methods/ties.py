"""TIES (Yadav et al. 2023): trim, elect signs, merge what agrees."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from alliage.merging.registry import (
    In,
    PerModel,
    PerModelNumber,
    method,
    per_model,
    weighted_sum,
)
from alliage.merging.thresholds import WholeVectorThresholds, magnitude_thresholds


class MajoritySign:
    """The sign that most parameters elect, for those whose votes cancel exactly.

    It is needed only where Σ wᵢτ̂ᵢ is exactly zero though some τ̂ᵢ is not; so it is guessed to be
    positive, counted on the way, and such blocks are merged again if the count says otherwise.
    """

    def __init__(self, **arguments: Any) -> None:
        """Count for `ties` with these arguments."""
        self.arguments: Mapping[str, Any] = {"majority": 1.0}
        self._weight = arguments["weight"]
        self._thresholds = arguments["thresholds"]
        self._balance = 0
        self._lock = threading.Lock()

    def update(self, deltas: Tensor) -> bool:
        """Count a block's elected signs; True where some of its votes cancel exactly."""
        kept = _trim(deltas, self._thresholds)
        votes = weighted_sum(kept, self._weight)
        with self._lock:
            self._balance += int((votes > 0).sum() - (votes < 0).sum())
        return bool(((votes == 0) & (kept != 0).any(dim=0)).any())

    def settled(self) -> Mapping[str, Any]:
        """The majority over all blocks: 1, −1, or 0 where neither sign has it."""
        return {"majority": float((self._balance > 0) - (self._balance < 0))}


@method(
    "ties",
    unit="block",
    space="delta",
    paper="arXiv:2306.01708",
    departures="Weights wᵢ are not in the paper: they multiply the trimmed vectors in the vote and "
    "in the mean; equal weights are the paper's method. Where the signs of all parameters balance "
    "exactly, votes that cancel take the negative side, as the authors' code does.",
    first_pass=WholeVectorThresholds,
    guess=MajoritySign,
)
def ties(
    deltas: Tensor,
    *,
    weight: Annotated[PerModelNumber, PerModel(), In(0, open_low=True)] = 1.0,
    density: Annotated[float, In(0, 1, open_low=True)] = 0.2,
    scale: Annotated[float, In(0)] = 1.0,
    thresholds: Tensor | None = None,
    majority: float | None = None,
) -> Tensor:
    """Keep the largest entries, elect a sign for each parameter, average those that agree with it.

    τ̂ᵢ keeps the entries with |τᵢ| ≥ tᵢ, the (d − ⌊dK⌋)-th smallest magnitude of the whole vector;
    γ = sgn Σ wᵢτ̂ᵢ, with the majority of all signs where that sum is zero; the result is λ times the
    weighted mean of the non-zero τ̂ᵢ whose sign is γ, and zero where there is none.

    Args:
        deltas: [n, ...], the task vectors, whole unless `thresholds` is given.
        weight: wᵢ > 0, each model's say in vote and mean.
        density: K, the share of entries that trimming keeps; 0.2 in the paper.
        scale: λ; 1 is the paper's recipe without a validation set.
        thresholds: [n], the tᵢ of the whole vectors, for a block of them.
        majority: 1, −1 or 0, the majority sign of the whole merge, for a block of it.

    Returns:
        [...], to be added to the base.
    """
    if thresholds is None:
        thresholds = magnitude_thresholds(deltas.flatten(1), density)
    kept = _trim(deltas, thresholds)
    votes = weighted_sum(kept, weight)
    if majority is None:
        majority = float(votes.sign().sum().sign())
    positive = votes > 0
    if majority > 0:
        positive |= votes == 0
    weights = per_model(weight, deltas)
    total, shares = torch.zeros_like(votes), torch.zeros_like(votes)
    for entry, factor in zip(kept, weights, strict=True):
        agrees = torch.where(positive, entry > 0, entry < 0)
        total += torch.where(agrees, entry * factor, 0.0)
        shares += agrees * factor
    return total.div_(shares.where(shares > 0, 1.0)).mul_(scale)


def _trim(deltas: Tensor, thresholds: Tensor) -> Tensor:
    return deltas.where(deltas.abs() >= per_model(thresholds, deltas), 0.0)
