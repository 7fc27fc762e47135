"""What the peers' TIES and Alliage's are asked: task vectors, densities, weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHTS = {"equal": [1.0] * 4, "unequal": [0.3, 0.7, 1.1, 0.5], "negative": [1.0, -0.5, 0.7, -0.2]}
LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])  # few magnitudes, as between bfloat16 weights


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coarse(models: int, numel: int, seed: int = 0) -> Tensor:
    """[models, numel]: each level a fifth of each row, so that all rows trim between two levels."""
    generator = torch.Generator().manual_seed(seed)
    rows = LEVELS.repeat(numel // len(LEVELS)).expand(models, -1)
    order = torch.rand(rows.shape, generator=generator).argsort(dim=1)
    signs = torch.randint(0, 2, rows.shape, generator=generator) * 2 - 1
    return rows.gather(1, order) * signs


def cancelling(majority: int) -> Tensor:
    """[2, 2000]: half of the votes cancel exactly; the others are of one sign, or balanced."""
    one, other = coarse(1, 1000), coarse(2, 500, seed=1)
    rest = [majority * other.abs()] * 2 if majority else [other, -other]
    return torch.cat([torch.cat([one, -one]), *rest], dim=1)


INPUTS = {
    "random": draw(3, 40, 25),
    "two dozen entries": draw(4, 3, 8, seed=1),
    "one entry": draw(3, 1, seed=2),
    "one model": draw(1, 1000, seed=3),
    "coarse": coarse(4, 2000).reshape(4, 50, 40),
    "cancelling, mostly positive": cancelling(1),
    "cancelling, mostly negative": cancelling(-1),
    "cancelling, balanced": cancelling(0),
}
BETWEEN_LEVELS = (0.2, 0.4, 0.6, 0.8, 1.0)
ANY_DENSITY = (0.03, 0.1, 0.29, 0.5, 0.7, 0.9, 1.0)


@dataclass(frozen=True)
class Case:
    inputs: str
    density: float
    weights: str = "equal"

    def __str__(self) -> str:
        return f"{self.inputs}, {self.density}, {self.weights}"

    @property
    def deltas(self) -> Tensor:
        return INPUTS[self.inputs]

    @property
    def weight(self) -> list[float]:
        return WEIGHTS[self.weights][: len(self.deltas)]


def cases(*, weights: tuple[str, ...] = ("equal",), counted: bool) -> dict[str, Case]:
    """All cases, by name; where peers count, none whose last entry kept is one of several equal."""
    found = [
        Case(inputs, density, shares)
        for inputs in INPUTS
        for density in sorted({*ANY_DENSITY, *BETWEEN_LEVELS})
        for shares in weights
        if not (counted and ("coarse" in inputs or "cancelling" in inputs))
        or density in BETWEEN_LEVELS
    ]
    return {str(case): case for case in found}
