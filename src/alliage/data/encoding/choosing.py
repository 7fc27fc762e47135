"""The encoder that belongs to a model, from the files beside its weights."""

from __future__ import annotations

from typing import Any

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.reference import read_json
from alliage.data.encoding.forms import Encoder
from alliage.data.encoding.generation import CausalEncoder, Seq2SeqEncoder
from alliage.data.encoding.images import ImageEncoder
from alliage.data.encoding.texts import TextEncoder
from alliage.data.task import GENERATIVE, Kind
from alliage.errors import AlliageError, Problem

# A tokenizer's words are in one of these.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.", "spiece.", "sentencepiece")
# Positions of these count from the padding token's id + 1.
_SHIFTED_POSITIONS = (
    "camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


def encoder_for(
    kind: Kind, checkpoint: Checkpoint, config: Any, *, max_length: int | None = None
) -> Encoder:
    """The encoder that belongs to a model.

    Args:
        kind: of the task.
        checkpoint: with the tokenizer's or image processor's files.
        config: the model's configuration, from transformers.
        max_length: tokens of a text; the model's own limit by default.

    Returns:
        a `GenerativeEncoder` for multiple-choice and text-generation.

    Raises:
        AlliageError: a text task, and the checkpoint holds no fast tokenizer.
    """
    if kind == "image-classification":
        return ImageEncoder(config, _processor(checkpoint))
    tokenizer, limit = _tokenizer(checkpoint, config), _limit(config, max_length)
    if kind not in GENERATIVE:
        return TextEncoder(tokenizer, kind, limit)
    if config.is_encoder_decoder:
        return Seq2SeqEncoder(tokenizer, kind, limit)
    return CausalEncoder(tokenizer, kind, limit)


def _tokenizer(checkpoint: Checkpoint, config: Any) -> Any:
    from transformers import AutoTokenizer

    where = str(checkpoint.path)
    fix = "Put the tokenizer's files (tokenizer.json) beside the weights."
    if not any(file.name.startswith(_VOCABULARIES) for file in checkpoint.companions):
        # Asked of transformers, this would give a tokenizer with an empty vocabulary.
        raise AlliageError(Problem(where, "no tokenizer in it.", fix))
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, config=config)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        what = f"its tokenizer does not load: {str(error).splitlines()[0]}"
        raise AlliageError(Problem(where, what, fix)) from None
    if not tokenizer.is_fast:
        raise AlliageError(
            Problem(where, "its tokenizer has no fast form, which aligning tags needs.")
        )
    if tokenizer.pad_token is None:  # decoders
        if tokenizer.eos_token is None:
            what = "its tokenizer has neither a padding token nor an end token."
            raise AlliageError(Problem(where, what, "Name one in tokenizer_config.json."))
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _limit(config: Any, max_length: int | None) -> int:
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    if config.model_type in _SHIFTED_POSITIONS:
        positions -= config.pad_token_id + 1
    return min(positions, max_length or positions)


def _processor(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.folder is None:
        return {}
    path = checkpoint.folder / "preprocessor_config.json"
    return read_json(path) if path.is_file() else {}
