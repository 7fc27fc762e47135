"""Task vectors of (IA)3 adapters: one learned scale for each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alliage.checkpoints import Checkpoint, TensorSpec
from alliage.checkpoints.names import is_conv1d, is_head, is_task_head
from alliage.errors import AlliageError, Problem
from alliage.vectors.adapter_names import base_names
from alliage.vectors.vector import Vector, check_parameter

if TYPE_CHECKING:
    import torch


class ScalingVector(Vector):
    """The task vector (l − 1)∘W of an (IA)3 adapter (arXiv:2205.05638).

    l scales the outputs of attention modules, and with them their bias; in feed-forward modules
    it scales the inputs, and the bias stays. The vector in the space of the scales is
    `scales(module) − 1`.

    Attributes:
        modules: names of the adapted modules, by the base's tensor names without ".weight".
        heads: names in the adapter's file of task heads saved whole, left out of the vector.
    """

    base: Checkpoint

    def __init__(self, base: Checkpoint, adapter: Checkpoint, *, name: str | None = None) -> None:
        """Match an adapter with its base; no tensor is read.

        Raises:
            AlliageError: the adapter belongs to another base; every misfit.
        """
        if adapter.adapter is None or adapter.adapter.kind != "ia3":
            raise AlliageError(Problem(adapter.ref, "is no (IA)3 adapter."))
        self.base = base
        self.adapter = adapter
        self.checkpoints = (adapter,)
        self.name = name or adapter.name
        problems: list[Problem] = []
        weights = [f"{module}.weight" for module in adapter.adapter_modules]
        found = base_names(base, adapter, weights, problems)
        specs = base.specs()
        self._sources: dict[str, tuple[str, bool]] = {}  # parameter -> its scale, over inputs
        self.shapes = {}
        for weight, parameter in found.items():
            stored = adapter.adapter_modules[weight.removesuffix(".weight")].parts["scale"]
            scale, shape = adapter.specs()[stored].shape, specs[parameter].shape
            # PEFT stores l as [out, 1] and, for feed-forward modules, as [1, in].
            inputs = len(scale) == 2 and scale[0] == 1 and scale[1] != 1
            length = max(scale)
            turned = is_conv1d((base.config or {}).get("model_type"), parameter)
            stored_axis = -1 if inputs != turned else 0
            if len(shape) != 2 or shape[stored_axis] != length:
                problems.append(
                    Problem(
                        f"{adapter.ref}: {weight}",
                        f"a scale {list(scale)} does not fit the base's {parameter} {list(shape)}.",
                        "The adapter belongs to another base.",
                    )
                )
                continue
            self._sources[parameter] = (stored, stored_axis == -1)
            self.shapes[parameter] = shape
            bias = parameter.removesuffix("weight") + "bias"
            if not inputs and bias in specs:
                self._sources[bias] = (stored, False)
                self.shapes[bias] = specs[bias].shape
        problems += [
            Problem(f"{adapter.ref}: {name}", "was saved whole beside the scales: not supported.")
            for name in adapter.adapter_saved
            if not is_task_head(name)
        ]
        if problems:
            raise AlliageError(problems)
        self.modules = tuple(parameter.removesuffix(".weight") for parameter in found.values())
        self.heads = tuple(s for n, s in adapter.adapter_saved.items() if is_head(n))

    def scales(self, module: str) -> torch.Tensor:
        """The learned scales l of one of `modules`, float32, [channels]."""
        check_parameter(self, f"{module}.weight")
        return self.adapter.read(self._sources[f"{module}.weight"][0]).float().reshape(-1)

    def source(self, parameter: str) -> TensorSpec:
        """Where the scales lie."""
        return self.adapter.specs()[self._sources[parameter][0]]

    def block(
        self, parameter: str, start: int, stop: int, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Elements [start, stop) of (l − 1)∘W, float32."""
        import torch

        check_parameter(self, parameter)
        if base is None:
            base = self.base.read(parameter, start, stop).float()
        stored, along_columns = self._sources[parameter]
        offsets = self.adapter.read(stored).float().reshape(-1).sub_(1)
        shape = self.shapes[parameter]
        columns = shape[1] if len(shape) == 2 else 1
        places = torch.arange(start, stop)
        channel = places % columns if along_columns else places // columns
        return offsets[channel].mul_(base)


class ScaleOffsets(Vector):
    """l − 1 itself, one entry for each learned scale, as arXiv:2306.01708 takes (IA)3's vectors.

    Its parameters are the adapted modules' weights, each with as many entries as it has scales.
    """

    def __init__(self, vector: ScalingVector) -> None:
        """Look at a vector's scales instead of what they do to the weights."""
        self.name = vector.name
        self.base = vector.base
        self.checkpoints = vector.checkpoints
        self.heads = vector.heads
        self._vector = vector
        self.shapes = {
            f"{module}.weight": (max(vector.source(f"{module}.weight").shape),)
            for module in vector.modules
        }

    def source(self, parameter: str) -> TensorSpec:
        """Where the scales lie."""
        check_parameter(self, parameter)
        return self._vector.source(parameter)

    def block(
        self,
        parameter: str,
        start: int,
        stop: int,
        base: torch.Tensor | None = None,  # noqa: ARG002
    ) -> torch.Tensor:
        """Elements [start, stop) of l − 1, float32."""
        check_parameter(self, parameter)
        return self._vector.scales(parameter.removesuffix(".weight"))[start:stop].sub(1)
