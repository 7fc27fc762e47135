"""Weights that one model uses under two names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alliage.checkpoints.spec import TensorSpec

# By the ends of names: what counts, and what transformers ties to it.
_TIED_ENDS = {
    "embeddings.word_embeddings.weight": (
        "cls.predictions.decoder.weight",
        "lm_head.decoder.weight",
    ),
    "cls.predictions.bias": ("cls.predictions.decoder.bias",),
    "lm_head.bias": ("lm_head.decoder.bias",),
    "embed_tokens.weight": ("lm_head.weight",),
    "wte.weight": ("lm_head.weight",),
    "embed_in.weight": ("embed_out.weight",),
    "shared.weight": (
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "lm_head.weight",
    ),
}
# Model types whose configuration class ties embeddings where config.json is silent.
_TIED_BY_DEFAULT = frozenset({
    "albert", "bart", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra",
    "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "mbart", "mpnet", "opt", "roberta", "t5",
    "xlm-roberta",
})  # fmt: skip


def declared_ties(
    specs: Mapping[str, TensorSpec], config: Mapping[str, Any] | None
) -> dict[str, str]:
    """Tied names that both lie in the files: later name -> the name that counts.

    Taken from names, shapes and config.json's `tie_word_embeddings`; no tensor is read.
    """
    if not _ties(config):
        return {}
    ties: dict[str, str] = {}
    for source_end, tied_ends in _TIED_ENDS.items():
        source = next((name for name in specs if _ends(name, source_end)), None)
        if source is None or source in ties:
            continue
        for end in tied_ends:
            for name, spec in specs.items():
                same = spec.shape == specs[source].shape and spec.dtype == specs[source].dtype
                if name != source and name not in ties and _ends(name, end) and same:
                    ties[name] = source
    return ties


def tied_to(
    name: str, specs: Mapping[str, TensorSpec], config: Mapping[str, Any] | None
) -> str | None:
    """The stored weight that a model uses under this name too, which may itself not be stored."""
    if not _ties(config):
        return None
    sources = (end for end, tied in _TIED_ENDS.items() if any(_ends(name, each) for each in tied))
    found = (each for end in sources for each in specs if each != name and _ends(each, end))
    return next(found, None)


def _ties(config: Mapping[str, Any] | None) -> bool:
    """Whether a configuration ties embeddings; nothing ties none."""
    if config is None:
        return False
    default = str(config.get("model_type")) in _TIED_BY_DEFAULT
    return bool(config.get("tie_word_embeddings", default))


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)
