"""Queries, keys and values that one matrix holds together: which of its outputs are whose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alliage.checkpoints.names import module_of

PARTS = ("query", "key", "value")

_THIRDS = {  # model type -> the module's own name; all queries, then all keys, then all values
    "gpt2": "c_attn", "openai-gpt": "c_attn", "imagegpt": "c_attn",
    "decision_transformer": "c_attn", "modernbert": "Wqkv", "mpt": "Wqkv",
}  # fmt: skip
# Query, key and value of the first head, then of the second, and so on.
_BY_HEADS = {"gpt_neox": "query_key_value", "bloom": "query_key_value"}
_GROUPED = {"phi3": "qkv_proj"}  # queries of all heads, then fewer heads of keys and of values


def fused_outputs(
    config: Mapping[str, Any] | None, parameter: str, outputs: int
) -> dict[str, list[int]] | None:
    """The outputs of a fused projection that are queries, keys and values.

    Args:
        config: the base's; its model type and numbers of heads tell the order.
        parameter: name of a weight or bias.
        outputs: how many outputs the projection has.

    Returns:
        "query", "key" and "value" with their outputs in order; None where the order is not known.
    """
    known = config or {}
    model, own = str(known.get("model_type")), module_of(parameter).rpartition(".")[2]
    everything = list(range(outputs))
    if _THIRDS.get(model) == own and outputs % 3 == 0:
        third = outputs // 3
        return {part: everything[i * third : (i + 1) * third] for i, part in enumerate(PARTS)}
    heads = known.get("num_attention_heads", known.get("n_head"))
    if not isinstance(heads, int) or heads < 1:
        return None
    if _BY_HEADS.get(model) == own and outputs % (3 * heads) == 0:
        width = outputs // (3 * heads)
        return {
            part: [o for o in everything if o // width % 3 == i] for i, part in enumerate(PARTS)
        }
    groups = known.get("num_key_value_heads") or heads
    if _GROUPED.get(model) == own and outputs % (heads + 2 * groups) == 0:
        width = outputs // (heads + 2 * groups)
        first, second = heads * width, (heads + groups) * width
        return dict(
            zip(PARTS, (everything[:first], everything[first:second], everything[second:]),
                strict=True)
        )  # fmt: skip
    return None
