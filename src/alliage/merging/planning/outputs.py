"""What becomes of each tensor of an output: merged, converted or copied, and in which file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alliage.checkpoints import TensorSpec
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.writer import plan_layout
from alliage.merging.planning.plan import Copied, MergedTensor, Plan, Source
from alliage.vectors import LowRankVector, TaskVector, Vector
from alliage.vectors.matching import decide_alike


def set_heads_apart(made: Plan) -> None:
    """Keep each model's own task heads beside what is merged.

    Adapters that all decide the same save heads that a method of whole weights merges as it merges
    those of full models.
    """
    if made.method.space == "weight":
        _take_in_heads(made.vectors)
    full = [vector for vector in made.vectors if isinstance(vector, TaskVector)]
    for vector in full:  # a head that some models decide other things with is nobody's to merge
        vector.set_apart(
            [n for n in vector.shapes if is_task_head(n) and any(n not in v.shapes for v in full)]
        )
    made.left_apart = {vector.name: vector.heads for vector in made.vectors if vector.heads}


def _take_in_heads(vectors: Sequence[Vector]) -> None:
    adapters = [vector for vector in vectors if isinstance(vector, LowRankVector)]
    heads = [
        {name: stored for name, stored in v.adapter.adapter_saved.items() if stored in v.heads}
        for v in adapters
    ]
    shapes = [
        {name: v.adapter.specs()[stored].shape for name, stored in own.items()}
        for v, own in zip(adapters, heads, strict=True)
    ]
    if len(adapters) < len(vectors) or any(own != shapes[0] for own in shapes):
        return
    first, known = adapters[0].adapter, adapters[0].base.specs()
    if any(name in known and known[name].shape != shape for name, shape in shapes[0].items()):
        return
    if all(v.adapter.path == first.path or decide_alike(first, v.adapter) for v in adapters):
        for vector, own in zip(adapters, heads, strict=True):
            vector.take_in(own)


def lay_out(
    made: Plan,
    name: str,
    spec: TensorSpec,
    sources: tuple[Source, ...],
    arguments: Mapping[str, Any],
) -> None:
    """Add one tensor of the output, like the tensor `spec`, to what is merged or copied."""
    base = made.base
    assert base is not None
    copies = tuple(later for later, first in base.ties.items() if first == name)
    dtype = made.dtype if made.dtype is not None and spec.is_weight else spec.dtype
    if sources:
        made.merged.append(MergedTensor(name, spec, dtype, copies, sources, arguments))
    elif dtype != spec.dtype:
        made.converted.append(MergedTensor(name, spec, dtype, copies, (), {}))
    else:
        made.copied += [Copied(each, spec.name) for each in (name, *copies)]


def finish_layout(made: Plan) -> None:
    """Lay out the output's files."""
    assert made.base is not None
    specs = made.base.specs()
    outputs = [
        (name, tensor.dtype, tensor.spec.shape)
        for tensor in (*made.merged, *made.converted)
        for name in (tensor.name, *tensor.copies)
    ]
    outputs += [(c.name, specs[c.source].dtype, specs[c.source].shape) for c in made.copied]
    made.layout = plan_layout(outputs, max_shard_bytes=made.shard_bytes)
