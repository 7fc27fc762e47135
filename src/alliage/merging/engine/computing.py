"""Computing blocks: by a compiled kernel where there is one, by the method's definition elsewhere.

Both read byte ranges of the base and of every model, and write the result in its place; a test
holds their bytes equal. Any thread may call them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from alliage.checkpoints import Checkpoint, TensorSpec, dtypes
from alliage.checkpoints.writer import TensorWriter
from alliage.errors import AlliageError, Problem
from alliage.merging.engine.blocks import Block
from alliage.merging.engine.returned import merged_tensor
from alliage.merging.engine.values import NUMPY, all_finite, draws, in_shape, narrowed, widened
from alliage.merging.kernels import Seen
from alliage.merging.planning.orientation import is_turned
from alliage.merging.planning.plan import Copied, MergedTensor, Plan
from alliage.merging.planning.statistics import statistics_of
from alliage.merging.registry import FirstPass, Sampling
from alliage.vectors import TaskVector, Vector, WholeModel

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def computing_for(plan: Plan, writer: TensorWriter | None, device: str = "cpu") -> Computing:
    """How a plan's blocks are computed.

    Args:
        plan: of a method that works on blocks or tensors.
        writer: of the output; None where nothing but first passes are computed.
        device: "cpu" or "cuda".
    """
    kernel = plan.kernel if device == "cpu" else None
    if kernel is not None:
        return KernelComputing(plan, writer, kernel)
    return TorchComputing(plan, writer, device)


_ALIGNED = {"uniform", "signs", "fisher"}  # arguments with a value for each element


class NotFiniteError(AlliageError):
    """Inputs hold NaN or infinity, or the output would: all that were seen."""


class Computing(ABC):
    """Reads blocks of a plan's inputs and writes blocks of its output.

    Attributes:
        flaws: NaN and infinity found so far: (file, tensor) -> the problem; ("output", tensor) for
            results of sound inputs.
    """

    def __init__(self, plan: Plan, writer: TensorWriter | None) -> None:
        self.plan = plan
        self.flaws: dict[tuple[str, str], Problem] = {}
        self._writer = writer

    @abstractmethod
    def sample(self, block: Block, reduction: Sampling) -> None:
        """Show a first pass a slice."""

    @abstractmethod
    def measure(self, block: Block, place: int, reduction: FirstPass) -> None:
        """Show a first pass a block, the one at this place in its group."""

    @abstractmethod
    def merge(self, block: Block, arguments: Mapping[str, Any], *, again: bool = False) -> Seen:
        """Merge and write a block; `again` where it was written before."""

    def compute(self, block: Block, given: Mapping[str, Any], *, again: bool = False) -> Seen:
        """Write a block: merged, with `given` beside its tensor's arguments, or copied."""
        tensor = block.tensor
        if not isinstance(tensor, MergedTensor) or not tensor.sources:
            self.copy(block)
            return Seen()
        return self.merge(block, {**tensor.arguments, **given}, again=again)

    def copy(self, block: Block) -> None:
        """Write a block of what the method does not touch, in the output's type."""
        assert self.plan.base is not None
        tensor = block.tensor
        if isinstance(tensor, Copied):
            spec = self.plan.base.specs()[tensor.source]
            names: tuple[str, ...] = (tensor.name,)
            dtype = spec.dtype
        else:
            spec, dtype = tensor.spec, tensor.dtype
            names = (tensor.name, *tensor.copies)
        raw = np.empty((block.stop - block.start) * dtypes.itemsize(spec.dtype), np.uint8)
        self.plan.base.read_into(spec.name, block.start, raw.data)
        if spec.is_weight:
            values = widened(raw, spec.dtype)
            self.check(values, spec)
            if dtype != spec.dtype:
                raw = narrowed(values, dtype)
                if not all_finite(widened(raw, dtype)):
                    self.flaw_in_output(tensor.name, dtype)
        self.write(names, block.start, raw)

    def write(
        self, names: tuple[str, ...], start: int, raw: NDArray[Any], *, again: bool = False
    ) -> None:
        """Write a block's bytes under every name that the tensor has."""
        assert self._writer is not None
        data = memoryview(raw.view(np.uint8).data).cast("B") if raw.size else memoryview(b"")
        for name in names:
            self._writer.write(name, start, data, again=again)

    def check(self, values: NDArray[np.float32], spec: TensorSpec) -> bool:
        """Whether an input's values are finite; a flaw is noted where they are not."""
        if all_finite(values):
            return True
        where = f"{spec.file}: {spec.name}"
        self.flaws[str(spec.file), spec.name] = Problem(where, "holds NaN or infinity.")
        return False

    def flaw_in_output(self, name: str, dtype: str) -> None:
        """Note a result that the output's type cannot hold."""
        what = f"some merged values are no finite {dtype}."
        self.flaws["output", name] = Problem(f"output: {name}", what)

    def raise_flaws(self) -> None:
        """Name the flawed inputs; the outputs they spoil only where no input is to blame.

        Raises:
            NotFiniteError: there are some.
        """
        inputs = [key for key in sorted(self.flaws) if key[0] != "output"]
        if self.flaws:
            raise NotFiniteError([self.flaws[key] for key in inputs or sorted(self.flaws)])


class KernelComputing(Computing):
    """Blocks as they are stored, straight through a compiled kernel; buffers are used again."""

    def __init__(self, plan: Plan, writer: TensorWriter | None, kernel: ModuleType) -> None:
        super().__init__(plan, writer)
        self._kernel = kernel
        self._local = threading.local()
        self._rows: dict[str, list[_Row]] = {}

    def sample(self, block: Block, reduction: Sampling) -> None:
        """Show a first pass a slice, as stored."""
        base, models = self._read(block)
        if not self._kernel.sample(reduction, base, models):
            self._blame(block)

    def measure(self, block: Block, place: int, reduction: FirstPass) -> None:
        """Show a first pass a block, as stored."""
        base, models = self._read(block)
        scratch = self._buffer("scratch", len(base), np.dtype(np.uint32))
        if not self._kernel.measure(reduction, base, models, place, scratch):
            self._blame(block)

    def merge(self, block: Block, arguments: Mapping[str, Any], *, again: bool = False) -> Seen:
        """Merge and write a block."""
        tensor = block.tensor
        assert isinstance(tensor, MergedTensor)
        base, models = self._read(block)
        direct = tensor.dtype in ("BF16", "F32")
        kind = np.dtype(np.uint16 if tensor.dtype == "BF16" else np.float32)
        out = self._buffer("out", block.stop - block.start, kind)
        seen: Seen = self._kernel.merge(base, models, out, **arguments)
        raw = out if direct else narrowed(out, tensor.dtype)
        finite = seen.finite and (direct or all_finite(widened(raw.view(np.uint8), tensor.dtype)))
        if not finite and not self._blame(block):
            self.flaw_in_output(tensor.name, tensor.dtype)
        self.write((tensor.name, *tensor.copies), block.start, raw, again=again)
        return seen

    def _read(self, block: Block) -> tuple[NDArray[Any], NDArray[Any]]:
        """The base's elements [m] and the models' [n, m]: both bfloat16 as uint16, or float32."""
        rows = self._rows_of(block.tensor)
        size = block.stop - block.start
        codes = {row.spec.dtype for row in rows}
        code = codes.pop() if len(codes) == 1 and codes <= {"BF16", "F32"} else "F32"
        kind = np.dtype(NUMPY[code])
        filled = self._buffer("inputs", len(rows) * size, kind).reshape(len(rows), size)
        for row, values in zip(rows, filled, strict=True):
            if row.spec.dtype == code:
                row.checkpoint.read_into(row.spec.name, block.start, values.view(np.uint8).data)
                continue
            raw = self._buffer("raw", size * dtypes.itemsize(row.spec.dtype), np.dtype(np.uint8))
            row.checkpoint.read_into(row.spec.name, block.start, raw.data)
            values[:] = widened(raw, row.spec.dtype)
        if self.plan.method.space == "weight":
            return filled[0], filled
        return filled[0], filled[1:]

    def _rows_of(self, tensor: MergedTensor | Copied) -> list[_Row]:
        """What is read for a tensor: for task vectors the base first, then every model."""
        assert isinstance(tensor, MergedTensor)
        rows = self._rows.get(tensor.name)
        if rows is None:
            assert self.plan.base is not None
            base = _Row(self.plan.base, tensor.spec)
            rows = [base] if self.plan.method.space == "delta" else []
            for number, parameter in tensor.sources:
                vector = self.plan.vectors[number]
                if parameter in vector.shapes:
                    rows.append(_Row(vector.checkpoints[0], vector.source(parameter)))
                else:
                    rows.append(base)
            self._rows[tensor.name] = rows
        return rows

    def _buffer(self, use: str, numel: int, kind: np.dtype[Any]) -> NDArray[Any]:
        """A worker's memory for some use, grown when it must be."""
        held: NDArray[np.uint8] | None = getattr(self._local, use, None)
        wanted = numel * kind.itemsize
        if held is None or len(held) < wanted:
            held = np.empty(wanted, np.uint8)
            setattr(self._local, use, held)
        return held[:wanted].view(kind)

    def _blame(self, block: Block) -> bool:
        """Note the inputs that are not finite in a block; whether there are any."""
        sound = True
        for row in self._rows_of(block.tensor):
            size = (block.stop - block.start) * dtypes.itemsize(row.spec.dtype)
            raw = np.empty(size, np.uint8)
            row.checkpoint.read_into(row.spec.name, block.start, raw.data)
            sound &= self.check(widened(raw, row.spec.dtype), row.spec)
        return not sound


class _Row:
    """Where one input of a tensor is read."""

    __slots__ = ("checkpoint", "spec")

    def __init__(self, checkpoint: Checkpoint, spec: TensorSpec) -> None:
        self.checkpoint = checkpoint
        self.spec = spec


class TorchComputing(Computing):
    """Blocks as float32 tensors through the method's own function, on any device."""

    def __init__(self, plan: Plan, writer: TensorWriter | None, device: str) -> None:
        import torch

        super().__init__(plan, writer)
        self._device = torch.device(device)

    def sample(self, block: Block, reduction: Sampling) -> None:
        """Show a first pass a slice, as tensors."""
        reduction.sample(self._read(block)[1])

    def measure(self, block: Block, place: int, reduction: FirstPass) -> None:
        """Show a first pass a block, as tensors."""
        drawn, known = self._draws(block), self._statistics(block)
        reduction.update(self._read(block)[1], place, **drawn, **known)

    def merge(self, block: Block, arguments: Mapping[str, Any], *, again: bool = False) -> Seen:
        """Merge and write a block."""
        import torch

        tensor, method = block.tensor, self.plan.method
        assert isinstance(tensor, MergedTensor)
        base, tensors = self._read(block)
        given = {**arguments, **self._draws(block), **self._statistics(block)}
        given |= self._signs(block)
        count, depends = 0, False
        if method.guess is not None:
            count, depends = method.guess.look(tensors, **given)
        if method.unit == "tensor":
            if not tensors.isfinite().all():  # noted; decompositions would fail on it
                return Seen()
            turned = is_turned(self.plan, tensor)
            shape = tensor.spec.shape
            given |= {key: in_shape(given[key], shape, turned) for key in _ALIGNED & given.keys()}
            shaped = in_shape(tensors, shape, turned)
            merged = method.function(shaped, **given)
            merged = merged_tensor(merged, method, tensor.name, shaped.shape[1:])
            merged = (merged.mT if turned else merged).reshape(-1)
        else:
            merged = method.function(tensors, **given)
            merged = merged_tensor(merged, method, tensor.name, tensors.shape[1:])
        result = base + merged if method.space == "delta" else merged
        stored = result.to(dtypes.torch_dtype(tensor.dtype)).cpu().contiguous()
        if not stored.isfinite().all():
            self.flaw_in_output(tensor.name, tensor.dtype)
        raw = stored.view(torch.uint8).numpy()
        self.write((tensor.name, *tensor.copies), block.start, raw, again=again)
        return Seen(count, depends)

    def _read(self, block: Block) -> tuple[Tensor, Tensor]:
        """The base's elements [m] and what the method works on [n, m], float32."""
        import torch

        tensor, plan = block.tensor, self.plan
        assert isinstance(tensor, MergedTensor)
        start, stop = block.start, block.stop
        base = self._base(tensor, start, stop)
        tensors = torch.empty(len(tensor.sources), stop - start)
        for row, (number, parameter) in zip(tensors, tensor.sources, strict=True):
            vector = plan.vectors[number]
            if parameter not in vector.shapes:
                row.copy_(base) if plan.method.space == "weight" else row.zero_()
            elif plan.method.space == "delta":
                row.copy_(vector.block(parameter, start, stop, base))
            else:
                row.copy_(_weights(vector, parameter, start, stop, base))
            if parameter in vector.shapes:
                self.check(row.numpy(), vector.source(parameter))
        return base.to(self._device), tensors.to(self._device)

    def tensors(self, block: Block) -> Tensor:
        """What the method works on in a block [n, m], float32."""
        return self._read(block)[1]

    def _base(self, tensor: MergedTensor, start: int, stop: int) -> Tensor:
        """The base's elements; zeros where they change nothing."""
        import torch

        base, vectors = self.plan.base, self.plan.vectors
        assert base is not None
        spec = base.specs().get(tensor.spec.name)
        whole = all(
            isinstance(vectors[number], TaskVector | WholeModel)
            and parameter in vectors[number].shapes
            for number, parameter in tensor.sources
        )
        if spec is None or spec.shape != tensor.spec.shape:  # layers of a deeper model, stacked
            return torch.zeros(stop - start)
        if self.plan.method.space == "weight" and whole:
            return torch.zeros(stop - start)
        values = base.read(spec.name, start, stop).float()
        self.check(values.numpy(), spec)
        return values

    def _signs(self, block: Block) -> dict[str, Tensor]:
        """Given signs of a block, where the recipe has some."""
        signs = self.plan.signs
        if signs is None:
            return {}
        found = signs.read(block.tensor.name, block.start, block.stop)
        return {"signs": found.to(self._device)}

    def _statistics(self, block: Block) -> dict[str, Any]:
        """What is known of a tensor's elements, or of its inputs, for a method that needs it."""
        import torch

        tensor, kind = block.tensor, self.plan.method.statistics
        if kind is None:
            return {}
        assert isinstance(tensor, MergedTensor)
        found = statistics_of(self.plan, tensor)
        if kind != "fisher":
            if any(each is None for each in found):
                return {"grams": None}
            grams = [self._known(each) for each in found if each is not None]
            return {"grams": torch.stack(grams).to(self._device)}
        # What the data do not touch has no Fisher information.
        rows = torch.zeros(len(found), block.stop - block.start)
        for row, each in zip(rows, found, strict=True):
            if each is not None:
                row.copy_(self._known(each, block.start, block.stop))
        return {"fisher": rows.to(self._device)}

    def _known(
        self, place: tuple[Checkpoint, str], start: int | None = None, stop: int | None = None
    ) -> Tensor:
        file, name = place
        values = file.read(name, start, stop).float()
        if not self.check(values.numpy(), file.specs()[name]):
            values.zero_()  # noted; decompositions would fail on it
        return values

    def _draws(self, block: Block) -> dict[str, Tensor]:
        """Random numbers for a method that takes some."""
        tensor = block.tensor
        if not self.plan.method.random:
            return {}
        assert isinstance(tensor, MergedTensor)
        seed, models = tensor.arguments["seed"], len(tensor.sources)
        drawn = draws(seed, tensor.name, models, block.start, block.stop)
        return {"uniform": drawn.to(self._device)}


def _weights(vector: Vector, parameter: str, start: int, stop: int, base: Tensor) -> Tensor:
    """A model's own weights."""
    if isinstance(vector, TaskVector | WholeModel):
        return vector.weights(parameter, start, stop)
    return base + vector.block(parameter, start, stop, base)
