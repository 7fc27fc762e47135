"""Sign flips (Yadav et al. 2023, section 7.2): how much depends on the signs of large entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from alliage.merging.methods.dare import drawn
from alliage.merging.registry import Scope, method
from alliage.merging.signature import Factor, In
from alliage.merging.thresholds import TrimThresholds
from alliage.merging.trimming import stays, trim_thresholds

if TYPE_CHECKING:
    from torch import Tensor

Part = Literal["top", "bottom"]


class FlipThresholds(TrimThresholds):
    """The thresholds by which exactly ⌊dK⌋ entries are the largest."""

    reads: ClassVar[tuple[str, ...]] = ("density", "trim")

    def __init__(self, models: int, numel: int, **parameters: Any) -> None:
        """Search the thresholds of `models` vectors with `numel` entries each."""
        super().__init__(models, numel, kept="count", **parameters)


@method(
    "flip_signs",
    unit="block",
    space="delta",
    paper="arXiv:2306.01708",
    departures="Exactly ⌊dK⌋ entries are the largest, of equal ones the first. λ is not in the "
    "paper.",
    models=1,
    first_pass=FlipThresholds,
    random=True,
)
def flip_signs(
    deltas: Tensor,
    *,
    density: Annotated[float, In(0, 1)] = 0.2,
    probability: Annotated[float, In(0, 1)] = 0.5,
    part: Part = "top",
    scale: Annotated[float, In(float("-inf")), Factor()] = 1.0,
    trim: Scope = "model",  # noqa: ARG001  the engine's: here everything is one vector
    seed: Annotated[int, In(0)] = 0,
    thresholds: Sequence[float] | Tensor | None = None,
    quota: Sequence[int] | None = None,
    uniform: Tensor | None = None,
) -> Tensor:
    """Turn the signs of a task vector's large entries, or of its small ones, at random: λτ̃.

    The ⌊dK⌋ entries of largest magnitude, or all but these, are multiplied by −1, each with
    probability p. Scored for p from 0 to 1 it tells how much of a task its largest changes hold
    (figure 7).

    Args:
        deltas: [1, ...], the task vector, whole unless `thresholds` is given.
        density: K, the share of entries that are the top; 0.2, 0.3 and 0.5 in the paper.
        probability: p, that an entry of the part is turned.
        part: "top", or "bottom", the other 1 − K.
        scale: λ.
        trim: what is one vector: the model, as in the paper, a module or a tensor.
        seed: of the draws; the paper's curves are means over three.
        thresholds: [1], the smallest magnitude at the top of the whole vector, for a block.
        quota: [1], how many entries equal to it a block has at the top, its first ones; −1: all.
        uniform: [1, ...], draws from [0, 1); an entry is turned where its draw is below p.

    Returns:
        [...], to be added to the base.
    """
    if thresholds is None:
        thresholds, quota = trim_thresholds(deltas, density, "count")
    top = stays(deltas, thresholds, quota)
    draws = drawn(deltas, seed) if uniform is None else uniform
    turned = (top if part == "top" else ~top) & (draws < probability)
    return deltas.where(~turned, -deltas)[0] * scale
