"""Which way round a method gets its matrices."""

from __future__ import annotations

from alliage.checkpoints.names import is_conv1d
from alliage.merging.planning.plan import MergedTensor, Plan
from alliage.merging.planning.statistics import stores_inputs_first


def is_turned(made: Plan, tensor: MergedTensor) -> bool:
    """Whether a tensor is stored as [d_in, d_out] and its method works on [d_out, d_in].

    Statistics tell of what they were collected from; elsewhere the architecture decides.
    """
    if stores_inputs_first(made, tensor):
        return True
    if not made.method.oriented or len(tensor.spec.shape) != 2 or made.base is None:
        return False
    return is_conv1d((made.base.config or {}).get("model_type"), tensor.name)
