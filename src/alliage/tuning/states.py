"""Training states on disk, from which a killed run goes on and ends with the same bytes.

.OUT.partial/journal                     says which states are whole
.OUT.partial/states/STAGE/checkpoint-N/  the Trainer's after step N, and the weights that move
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from alliage.checkpoints.journal import JournaledFolder
from alliage.checkpoints.writer import sync_tree

_WEIGHTS = "moving.safetensors"
_EVERY = 600.0  # seconds between two states, where no number of steps is asked for


class States:
    """The states of one stage of a run.

    Attributes:
        home: the folder of the stage's states.
        out: where the run's output will be.
        carried: figures that every state is saved with; those of the last one, where there is one.
    """

    def __init__(
        self, folder: JournaledFolder, stage: str, every: int | None, **carried: float
    ) -> None:
        """Find what an interrupted run left of a stage.

        Args:
            folder: the output's, entered.
            stage: a name.
            every: steps between two states; ten minutes by default.
            carried: figures to save with every state.
        """
        self.home = folder.staging.parent / "states" / stage
        self.out = folder.out
        self.carried = carried
        self._folder = folder
        self._stage = stage
        self._every = every
        self._step = 0
        self._before = 0.0
        entries = [entry for entry in folder.entries if entry["stage"] == stage]
        self._last: Mapping[str, Any] | None = entries[-1] if entries else None
        if self._last is not None:
            self._step = self._last["step"]
            self._before = self._last["seconds"]
            self.carried = self._last["carried"]
        self._started = self._saved = time.perf_counter()

    @property
    def last(self) -> Path | None:
        """The state to go on from."""
        return self.at(self._last["step"]) if self._last is not None else None

    def at(self, step: int) -> Path:
        """Where the state after a step lies."""
        return self.home / f"checkpoint-{step}"

    def elapsed(self) -> float:
        """Seconds that the stage took so far, those of interrupted runs included."""
        return self._before + time.perf_counter() - self._started

    def restart(self) -> None:
        """The stage begins now."""
        self._started = self._saved = time.perf_counter()

    def due(self, step: int) -> bool:
        """Whether a state should be saved after this step."""
        if self._every is not None:
            return step - self._step >= self._every
        return time.perf_counter() - self._saved >= _EVERY

    def keep(self, step: int, best: int | None) -> None:
        """Write down that the state after a step is whole, and remove all others but the best."""
        sync_tree(self.home)
        figures = {"seconds": self.elapsed(), "carried": self.carried}
        self._folder.add({"stage": self._stage, "step": step, **figures})
        self._step = step
        self._saved = time.perf_counter()
        for state in self.home.iterdir():
            if state not in (self.at(step), self.at(best or step)):
                shutil.rmtree(state)


def clear(folder: JournaledFolder) -> None:
    """Remove states that the journal of a new run does not know."""
    if not folder.entries:
        shutil.rmtree(folder.staging.parent / "states", ignore_errors=True)


def save_moving(model: torch.nn.Module, state: Path) -> None:
    """Save the parameters that move, and the buffers, by their names in memory.

    A model's own files may have other names (ViT's have), by which the Trainer's way of loading
    would find nothing, and say nothing.
    """
    from safetensors.torch import save_file

    state.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in _moving(model).items()}
    save_file(tensors, state / _WEIGHTS)


def load_moving(model: torch.nn.Module, state: Path) -> None:
    """Put saved parameters and buffers back into the model they were saved from."""
    from safetensors.torch import load_file

    places = _moving(model)
    saved = load_file(state / _WEIGHTS)
    if saved.keys() != places.keys():
        raise RuntimeError(f"{state} was saved from another model")
    with torch.no_grad():
        for name, tensor in saved.items():
            places[name].copy_(tensor)


def _moving(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    free = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kept = model.state_dict().keys()
    return free | {name: buffer for name, buffer in model.named_buffers() if name in kept}
