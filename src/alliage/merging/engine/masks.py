"""The models' masks, kept beside what they were merged into: `tasks/<model>.safetensors`.

One more pass over the inputs, in blocks like the merge. Nothing of it is journaled: an interrupted
run makes the files anew.
"""

from __future__ import annotations

import contextlib
import math
import threading
from typing import TYPE_CHECKING

import numpy as np

from alliage.checkpoints.masks import FOLDER, SCALE, masks_layout, packed
from alliage.checkpoints.writer import OutputFolder, TensorWriter
from alliage.merging.engine.blocks import cut, for_each
from alliage.merging.engine.computing import TorchComputing
from alliage.merging.engine.heads import folder_name
from alliage.merging.engine.passes import OnEvent
from alliage.merging.planning.plan import MergedTensor, Plan
from alliage.merging.registry import partial_sums

if TYPE_CHECKING:
    from torch import Tensor

_Sums = list[tuple[float, float]]  # of each model: Σ|τᵢ| and Σ|Mᵢ∘merged|


def write_masks(plan: Plan, folder: OutputFolder, notify: OnEvent) -> None:
    """Write each model's masks and scale, for a method by which models can be rebuilt."""
    if plan.method.masks is None:
        return
    from alliage.threads import one_torch_thread

    home = folder.staging / FOLDER
    home.mkdir(exist_ok=True)
    computing, size = TorchComputing(plan, None, "cpu"), plan.block
    shapes = {tensor.name: tensor.spec.shape for tensor in plan.merged}
    found: list[_Sums] = []
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                TensorWriter(
                    home, masks_layout(vector.name, folder_name(vector.name), shapes), resume=True
                )
            )
            for vector in plan.vectors
        ]
        lock = threading.Lock()

        def work(tensor: MergedTensor) -> None:
            sums = _write_tensor(tensor, computing, writers, size)
            with lock:
                found.append(sums)

        largest_first = sorted(plan.merged, key=lambda tensor: -tensor.spec.numel)
        with one_torch_thread():
            for_each(
                largest_first,
                work,
                plan.workers,
                lambda done: notify("masks", done, len(largest_first)),
            )
        for model, writer in enumerate(writers):
            scale = _scale([sums[model] for sums in found]) if plan.method.masks.rescale else 1.0
            writer.write(SCALE, 0, np.array([scale]).data.cast("B"))


def _write_tensor(
    tensor: MergedTensor, computing: TorchComputing, writers: list[TensorWriter], size: int
) -> _Sums:
    """Write one tensor's masks, in blocks of some size; the magnitudes that scales are made of."""
    method = computing.plan.method
    assert method.masks is not None
    before: list[list[float]] = [[] for _ in writers]
    after: list[list[float]] = [[] for _ in writers]
    for block in cut(tensor, tensor.spec.numel, size):
        deltas = computing.tensors(block)
        merged: Tensor = method.function(deltas, **tensor.arguments)
        chosen = method.masks.select(deltas, merged, **tensor.arguments)
        for row, writer in zip(packed(chosen.numpy()), writers, strict=True):
            if row.size:  # blocks begin at whole bytes
                writer.write(tensor.name, block.start // 8, row.data.cast("B"))
        if method.masks.rescale:
            magnitudes = merged.abs()
            for model, (delta, mask) in enumerate(zip(deltas, chosen, strict=True)):
                before[model] += partial_sums(delta.abs())
                after[model] += partial_sums(magnitudes * mask)
    return [
        (math.fsum(all_of), math.fsum(kept)) for all_of, kept in zip(before, after, strict=True)
    ]


def _scale(sums: _Sums) -> float:
    """Σ|τᵢ| / Σ|Mᵢ∘merged|, whatever the order of the tensors; 1 where nothing is kept."""
    before, after = (math.fsum(column) for column in zip(*sums, strict=True))
    return before / after if after > 0 else 1.0
