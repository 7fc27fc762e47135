"""Loading what can answer a task: a classifier, a language model, an adapter, a body and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.checkpoints.names import is_task_head
from alliage.data import Kind, Task
from alliage.data.encoding import Encoder, encoder_for
from alliage.data.task import GENERATIVE
from alliage.errors import AlliageError, Problem
from alliage.evaluation.heads import Head, Misfit, base_of, choose_head, match_labels
from alliage.evaluation.quiet import quiet_transformers


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model ready to answer one task.

    Attributes:
        model: in evaluation mode, float32; its output has `logits`.
        encoder: prepares examples for it.
        columns: for each of the task's labels, the column of the logits that stands for it; the
            only one of regression; none of language models.
        kind: of the task.
        name: of model and task, for errors.
    """

    model: torch.nn.Module
    encoder: Encoder
    columns: tuple[int, ...]
    kind: Kind = "sequence-classification"
    name: str = "model"


def load_classifier(checkpoint: Checkpoint, task: Task, *, head: str | None = None) -> Classifier:
    """Load a model with the head for a task.

    Args:
        checkpoint: a full model, an adapter, or a merged body with its parents' heads in `heads/`;
            pruned or not. Multiple choice and generation take a language model.
        task: what it is to answer. The model's labels must be the task's, in any order; a model
            that names no labels must have as many.
        head: of a merged model, the parent whose head to use; by default the one that records the
            task's name.

    Raises:
        Misfit: no head for the task, or one with other labels.
        AlliageError: the files lack weights or cannot be loaded.
    """
    writes = task.kind in GENERATIVE
    chosen = Head("body", None, 0) if writes else choose_head(checkpoint, task, head)
    columns = () if writes else match_labels(checkpoint, task, chosen)
    body = checkpoint if checkpoint.adapter is None else base_of(checkpoint)
    replaced: dict[str, torch.Tensor] | None = None if chosen.home == "body" else {}
    if isinstance(chosen.home, Path):
        with open_checkpoint(chosen.home) as file:
            replaced = {name: file.read(name) for name in file.specs()}
    labels = chosen.labels or tuple(f"LABEL_{index}" for index in range(chosen.outputs))
    model, missing = load_model(body, task.kind, labels, head=replaced)
    adapted = model
    if checkpoint.adapter is not None:
        from peft import PeftModel

        with quiet_transformers():
            adapted = PeftModel.from_pretrained(model, str(checkpoint.folder))
        missing -= set(checkpoint.adapter_saved)
    if missing:
        what = f"expected by {type(model).__name__}, but neither the model nor its head has it."
        where = f"{checkpoint.ref}: {', '.join(sorted(missing)[:4])}"
        raise (Misfit if writes else AlliageError)(Problem(where, what))
    with_tokenizer = checkpoint if checkpoint.adapter is None or checkpoint.companions else body
    return Classifier(
        adapted.eval(),
        encoder_for(task.kind, with_tokenizer, model.config),
        columns,
        task.kind,
        f"{checkpoint.name} on {task.name}",
    )


def load_model(
    body: Checkpoint,
    kind: Kind,
    labels: Sequence[str],
    *,
    head: Mapping[str, torch.Tensor] | None = None,
) -> tuple[Any, set[str]]:
    """Build transformers' model of a kind in float32.

    Args:
        body: the weights, with or without a task head.
        kind: of the task.
        labels: of the head, in order; of a regression, and of language models, they do not matter.
        head: tensors by the names of files that stand for the body's own task head; none to
            start one afresh, from torch's global generator; nothing to keep the body's.

    Returns:
        the model, and the names of its parameters that nobody gave: they are initialised afresh.

    Raises:
        Misfit: an encoder, for a kind that takes a language model.
        AlliageError: no configuration, an architecture without such a head, or tensors of other
            shapes than the configuration says.
    """
    from transformers import AutoConfig, GenerationConfig

    if body.config is None or body.folder is None:
        raise AlliageError(
            Problem(body.ref, "has no config.json beside its weights.", "Give the whole folder.")
        )
    given = {
        name: body.read(name) for name in body.specs() if head is None or not is_task_head(name)
    }
    from alliage.architectures import blocks  # noqa: F401  transformers knows them now

    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(body.folder, **_head_settings(kind, labels))
            if kind in GENERATIVE:
                _refuse_encoders(body, config)
            with torch.device("meta"):
                architecture = type(auto_class(kind, config).from_config(config))
            model, info = architecture.from_pretrained(
                None,
                config=config,
                state_dict=given | dict(head or {}),
                dtype=torch.float32,
                output_loading_info=True,
            )
            if kind in GENERATIVE and (body.folder / "generation_config.json").is_file():
                model.generation_config = GenerationConfig.from_pretrained(body.folder)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            raise AlliageError(
                Problem(body.ref, f"does not load for {kind}: {str(error).splitlines()[0]}")
            ) from None
    if kind != "image-classification" and config.pad_token_id is None:  # decoders
        model.config.pad_token_id = config.eos_token_id
    return model, set(info["missing_keys"])


def auto_class(kind: Kind, config: Any) -> Any:
    """The class of transformers that loads a model of a kind and a configuration."""
    import transformers

    if kind in GENERATIVE:
        if config.is_encoder_decoder:
            return transformers.AutoModelForSeq2SeqLM
        return transformers.AutoModelForCausalLM
    return {
        "regression": transformers.AutoModelForSequenceClassification,
        "sequence-classification": transformers.AutoModelForSequenceClassification,
        "token-classification": transformers.AutoModelForTokenClassification,
        "image-classification": transformers.AutoModelForImageClassification,
    }[kind]


def _refuse_encoders(body: Checkpoint, config: Any) -> None:
    """Run as a language model, an encoder would see the words that it is to predict."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if masked and not config.is_encoder_decoder and not getattr(config, "is_decoder", False):
        raise Misfit(
            Problem(body.ref, f"is an encoder ({config.model_type}): it cannot write texts.")
        )


def _head_settings(kind: Kind, labels: Sequence[str]) -> dict[str, Any]:
    """What a configuration says of the head."""
    if kind in GENERATIVE:
        return {}
    if kind == "regression":
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
