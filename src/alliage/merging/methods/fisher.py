"""Fisher merging (Matena and Raffel 2022): each entry as much as its model needs it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from alliage.merging.products import ExactSum
from alliage.merging.registry import Scope, method, one_each, partial_sums
from alliage.merging.signature import In, PerModel, PerModelNumber

if TYPE_CHECKING:
    from torch import Tensor


class FisherNorms:
    """‖F̂ᵢ‖₂ of each model over all that is merged, as a first pass, in float64."""

    reads: ClassVar[tuple[str, ...]] = ("normalize",)

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:  # noqa: ARG002
        """Start with nothing seen."""
        self._wanted = bool(parameters["normalize"])
        self._squares = [ExactSum() for _ in range(models)]
        self._seen = False
        self._lock = threading.Lock()

    @staticmethod
    def scope(**parameters: Any) -> Scope:
        """The whole model, where there is anything to measure."""
        return "model" if parameters["normalize"] else "tensor"

    @staticmethod
    def least_passes(**parameters: Any) -> int:
        """None where norms are not asked for."""
        return int(parameters["normalize"])

    @staticmethod
    def memory(models: int, sampled: int) -> int:  # noqa: ARG004
        """Bytes: next to none."""
        return 0

    def update(
        self,
        tensors: Tensor,
        place: int,  # noqa: ARG002
        uniform: Tensor | None = None,  # noqa: ARG002
        fisher: Tensor | None = None,
    ) -> None:
        """Add a block's [n, m] squares."""
        assert fisher is not None
        assert fisher.shape == tensors.shape
        squares = [partial_sums(row.double().square()) for row in fisher]
        with self._lock:
            self._seen = True
            for total, sums in zip(self._squares, squares, strict=True):
                total.add(sums)

    def result(self) -> Mapping[str, Any] | None:
        """The {"norms": [n]}; nothing is looked at unless they are wanted."""
        if not self._wanted:
            return {"norms": None}
        if not self._seen:
            return None
        return {"norms": [math.sqrt(squares.total()) for squares in self._squares]}


@method(
    "fisher",
    unit="block",
    space="weight",
    paper="arXiv:2111.09832",
    departures="The floor holds for every model; the authors' code may favour the first one. What "
    "a model's data do not touch has no information, and counts with the floor.",
    first_pass=FisherNorms,
    statistics="fisher",
    identical=True,
)
def fisher(
    weights: Tensor,
    *,
    fisher: Tensor,
    weight: Annotated[PerModelNumber, PerModel(shares=True), In(0)] = 1.0,
    floor: Annotated[float, In(0, open_low=True)] = 1e-6,
    normalize: bool = False,
    norms: Sequence[float] | None = None,
) -> Tensor:
    """Average the weights by their diagonal Fisher information: Σ wᵢF̂ᵢθᵢ / Σ wᵢF̂ᵢ.

    Args:
        weights: [n, ...], the models' weights.
        fisher: [n, ...], F̂ᵢ of each entry, whole where it is to be normalised without `norms`.
        weight: wᵢ, the share of each model.
        floor: the least F̂ᵢ of an entry; where all models have it, the entry is averaged, with
            `normalize` by the inverse norms.
        normalize: divide F̂ᵢ, the floor included, by its norm over the whole model, so that a model
            whose answers depend much on all its weights does not outweigh the others.
        norms: [n], of the whole models.

    Returns:
        [...], the merged weights.
    """
    import torch

    shares = one_each(weight, len(weights)).tolist()
    if normalize:
        if norms is None:
            norms = [float(row.double().norm()) for row in fisher]
        # A model without any information has nothing to be divided by.
        shares = [share / (norm or 1.0) for share, norm in zip(shares, norms, strict=True)]
    total = torch.zeros(weights.shape[1:], dtype=torch.float64, device=weights.device)
    mass = torch.zeros_like(total)
    for tensor, information, share in zip(weights, fisher, shares, strict=True):
        importance = information.double().clamp_(min=floor).mul_(share)
        mass += importance
        total += importance.mul_(tensor)
    return total.div_(mass).float()
