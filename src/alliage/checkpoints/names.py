"""What tensor names tell: the layer, the kind of module, task heads, and who matches whom.

Pure text: names in, names out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|transformer_blocks)\.(\d{1,9})(?:\.|$)")

# The first pattern that matches a module's name decides. Written for names in files and in memory
# of BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa, ModernBERT, ViT, CLIP, GPT-2, GPT-NeoX, Llama and
# its family, Phi, OPT, T5 and BART.
_KINDS = (
    ("embedding", r"embed|\bwte$|\bwpe$|^shared$|\bshared$|cls_token"),
    ("norm", r"norm|\bln_|layer_?norm|\bLayerNorm"),
    ("qkv", r"c_attn$|query_key_value$|qkv(_proj)?$|Wqkv$|attention\.self\.in_proj$"),
    ("query", r"(query|query_proj|q_proj|q_lin|SelfAttention\.q|EncDecAttention\.q|\.q)$"),
    ("key", r"(key|key_proj|k_proj|k_lin|SelfAttention\.k|EncDecAttention\.k|\.k)$"),
    ("value", r"(value|value_proj|v_proj|v_lin|SelfAttention\.v|EncDecAttention\.v|\.v)$"),
    (
        "output",
        r"attention\.output\.dense$|(o_proj|out_proj|out_lin|Wo)$|attn\.c_proj$"
        r"|Attention\.o$|attention\.dense$|self_attn\.dense$",
    ),
    (
        "mlp",
        r"mlp|\bffn|intermediate|output\.dense$|DenseReluDense|\bfc[12]$|feed_?forward"
        r"|(gate|up|down)_proj$",
    ),
)
KINDS = (*(kind for kind, _ in _KINDS), "head", "other")
_ALIASES = {"q": "query", "k": "key", "v": "value", "o": "output"}

_HEAD = re.compile(
    r"(^|\.)(classifier|score|qa_outputs|lm_head|cls|pooler|pre_classifier|classification_head"
    r"|vocab_(transform|layer_norm|projector)|multi_choice|logits_proj|sequence_summary"
    r"|generator_lm_head|discriminator_predictions|embed_out|head|decoder_pred)(\.|$)"
)
# Heads that belong to the model rather than to one task: merged wherever all models have them.
_SHARED_HEAD = re.compile(r"(^|\.)(lm_head|cls|pooler|embed_out|generator_lm_head)(\.|$)")


def layer_of(name: str) -> int | None:
    """The layer index in a tensor's or module's name; None outside the stack.

    >>> layer_of("bert.encoder.layer.11.attention.self.query.weight")
    11
    """
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None


def stack_of(name: str) -> str:
    """The stack of layers that a name belongs to; empty outside the stacks.

    >>> stack_of("decoder.block.3.layer.1.EncDecAttention.q.weight")
    'decoder.block'
    """
    match = _LAYER.search(name)
    return name[: match.start(1) - 1] if match else ""


def layer_count(names: Iterable[str]) -> int:
    """How many layers the names of a model tell of; one where they tell of none.

    >>> layer_count(["embeddings.weight", "layer.0.bias", "layer.11.bias"])
    12
    """
    return max((layer_of(name) or 0 for name in names), default=0) + 1


def module_of(name: str) -> str:
    """A tensor's module: its name without the parameter's own ("weight", "bias").

    >>> module_of("h.0.attn.c_attn.weight")
    'h.0.attn.c_attn'
    """
    head, _, tail = name.rpartition(".")
    return head if tail in ("weight", "bias") else name


def kind_of(name: str) -> str:
    """What a module does, across architectures: one of `KINDS`.

    >>> kind_of("model.layers.3.self_attn.q_proj")
    'query'
    >>> kind_of("vit.encoder.layer.0.output.dense.weight")
    'mlp'
    """
    module = module_of(name)
    inside = _LAYER.search(module)
    if inside is None and is_head(module):
        return "head"
    local = module[inside.end() :] if inside else module
    return next((kind for kind, pattern in _KINDS if re.search(pattern, local)), "other")


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds from a command line: "q,v" or "query,value".

    Raises:
        KeyError: with the unknown word.
    """
    kinds = tuple(
        _ALIASES.get(word.strip(), word.strip()) for word in text.split(",") if word.strip()
    )
    for kind in kinds:
        if kind not in KINDS:
            raise KeyError(kind)
    return kinds


def is_head(name: str) -> bool:
    """Whether a tensor sits on top of the body: classifiers, language-model heads, poolers."""
    return layer_of(name) is None and _HEAD.search(name) is not None


def is_task_head(name: str) -> bool:
    """Whether a tensor belongs to one task's output layer: never merged between tasks."""
    return is_head(name) and _SHARED_HEAD.search(name) is None


_PREFIXES = 16  # tried on either side: each takes a walk over all names

_CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
_CONV1D = re.compile(r"\.(c_attn|q_attn|c_proj|c_fc)\.weight$")


def is_conv1d(model_type: str | None, name: str) -> bool:
    """Whether a weight is stored as [in, out], as transformers' Conv1D does, not as [out, in]."""
    return str(model_type) in _CONV1D_MODELS and _CONV1D.search(name) is not None


@dataclass(frozen=True, slots=True)
class Alignment:
    """Which of a tuned model's tensors stands for which of the base's.

    Attributes:
        pairs: base name -> tuned name.
        missing: base names that the tuned model lacks.
        extra: tuned names that the base lacks.
    """

    pairs: dict[str, str]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def align(base: Collection[str], tuned: Collection[str]) -> Alignment:
    """Match names that differ at most by a leading model prefix.

    A bare encoder saves "encoder.layer.0…", the same encoder under a task head
    "bert.encoder.layer.0…". Of each side's most frequent prefixes, the one that matches most names
    wins; without any, names match as they are.
    """
    best: dict[str, str] = {}
    tuned_names = set(tuned)
    prefixes = sorted({"", *_leading(base), *_leading(tuned)}, key=lambda p: (len(p), p))
    for prefix in prefixes:
        for pairs in (
            {name: prefix + name for name in base if prefix + name in tuned_names},
            {
                name: name.removeprefix(prefix)
                for name in base
                if name.startswith(prefix) and name.removeprefix(prefix) in tuned_names
            },
        ):
            # Names outside the prefix, such as a shared head's, match as they are.
            used = set(pairs.values())
            pairs |= {
                name: name
                for name in base
                if name not in pairs and name in tuned_names and name not in used
            }
            if len(pairs) > len(best):
                best = pairs
    matched = set(best.values())
    return Alignment(
        pairs={name: best[name] for name in base if name in best},
        missing=tuple(name for name in base if name not in best),
        extra=tuple(name for name in tuned if name not in matched),
    )


def _leading(names: Iterable[str]) -> set[str]:
    counts = Counter(name.partition(".")[0] + "." for name in names if "." in name)
    return {prefix for prefix, _ in counts.most_common(_PREFIXES)}
