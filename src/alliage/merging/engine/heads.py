"""The models' task heads, kept beside a merged body.

A head belongs to one task: averaging two of them means nothing. Each goes, with its labels, into
`heads/<model>/`, from where `alliage evaluate` puts it back on the merged body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from shutil import copytree
from typing import Any

import numpy as np

from alliage.checkpoints import Checkpoint, dtypes, provenance
from alliage.checkpoints.labels import config_labels, head_outputs
from alliage.checkpoints.names import is_task_head
from alliage.checkpoints.reference import HEADS, read_json
from alliage.checkpoints.writer import OutputFolder, TensorWriter, plan_layout
from alliage.errors import AlliageError, Problem
from alliage.merging.engine.values import widened
from alliage.merging.planning.plan import Plan
from alliage.vectors import LowRankVector

_BLOCK = 2**20  # elements looked at together
_KINDS = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
}

# PEFT's type of task, or what Alliage's tuning recorded -> transformers' table of classes.
_TABLES = {
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
}


def write_heads(plan: Plan, folder: OutputFolder) -> None:
    """Write each model's head.safetensors and head.json.

    What is made of one model alone keeps the heads that stand beside that model: a merged adapter
    that is applied to its base still answers all tasks.

    Raises:
        AlliageError: a head holds NaN or infinity; each tensor that does.
    """
    if len(plan.vectors) == 1:
        (only,) = plan.vectors
        home = only.checkpoints[0].folder if only.checkpoints else None
        if home is not None and (home / HEADS).is_dir():
            copytree(home / HEADS, folder.staging / HEADS, dirs_exist_ok=True)
    for vector in plan.vectors:
        names = plan.left_apart.get(vector.name)
        if not names:
            continue
        source = vector.checkpoints[0]
        home = folder.staging / HEADS / folder_name(vector.name)
        home.mkdir(parents=True, exist_ok=True)
        bare = {_in_model(source, name): name for name in names}
        _check(source, names)
        specs = source.specs()
        layout = plan_layout(
            ((name, specs[stored].dtype, specs[stored].shape) for name, stored in bare.items()),
            stem="head",
        )
        with TensorWriter(home, layout, resume=True) as writer:
            for name, stored in bare.items():
                writer.copy(name, source, stored)
        outputs = head_outputs({name: specs[stored].shape for name, stored in bare.items()})
        described = _describe(source, outputs)
        folder.add_json(f"{HEADS}/{folder_name(vector.name)}/head.json", described)


def merged_head(plan: Plan) -> dict[str, Any] | None:
    """What a head decides that adapters saved and that was merged with the rest; else nothing."""
    first = plan.vectors[0]
    if not isinstance(first, LowRankVector):
        return None
    names = [name for name in first.saved_whole if is_task_head(name)]
    shapes = {name: first.shapes[name] for name in names}
    return _describe(first.adapter, head_outputs(shapes)) if shapes else None


def _check(source: Checkpoint, names: Iterable[str]) -> None:
    problems = []
    for spec in (source.specs()[name] for name in names if source.specs()[name].is_weight):
        for start in range(0, spec.numel, _BLOCK):
            count = min(_BLOCK, spec.numel - start)
            raw = np.empty(count * dtypes.itemsize(spec.dtype), np.uint8)
            source.read_into(spec.name, start, raw.data)
            if not np.isfinite(widened(raw, spec.dtype)).all():
                problems.append(Problem(f"{spec.file}: {spec.name}", "holds NaN or infinity."))
                break
    if problems:
        raise AlliageError(problems)


def folder_name(model: str) -> str:
    """A model's name as one folder: "org/name" as the hub's cache writes it."""
    return model.replace("/", "--")


def _in_model(source: Checkpoint, stored: str) -> str:
    """A head tensor's name in the model, whatever an adapter's file calls it."""
    return next((name for name, file in source.adapter_saved.items() if file == stored), stored)


def _describe(source: Checkpoint, outputs: int) -> dict[str, Any]:
    """What a head decides.

    From head.json of a head that was kept before, from alliage.json of a model that Alliage tuned,
    else from config.json.
    """
    kept = source.path.parent / "head.json"
    if source.home is None and kept.is_file():
        return read_json(kept)
    record = (provenance.read(source.folder) if source.folder is not None else None) or {}
    config = source.config or {}
    labels = record.get("labels") or config_labels(config)
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    kind = next((kind for end, kind in _KINDS.items() if architecture.endswith(end)), None)
    return {
        "task": record.get("task"),
        "kind": record.get("kind", kind),
        "labels": list(labels) if labels else None,
        "num_labels": len(labels) if labels else outputs,
    }


def head_settings(
    adapter: Checkpoint, config: Mapping[str, Any], head: Mapping[str, Any]
) -> dict[str, Any]:
    """What config.json must say of the head: the architecture, and the labels by number."""
    found: dict[str, Any] = {}
    architecture = _architecture(adapter, config, head["kind"])
    if architecture is not None:
        found["architectures"] = [architecture]
    labels = head["labels"] or [f"LABEL_{number}" for number in range(head["num_labels"])]
    found["id2label"] = dict(enumerate(labels))
    found["label2id"] = {label: number for number, label in enumerate(labels)}
    return found


def _architecture(adapter: Checkpoint, config: Mapping[str, Any], kind: str | None) -> str | None:
    """The adapted model's class; nothing where neither PEFT nor Alliage noted one."""
    settings = adapter.adapter.raw if adapter.adapter is not None else {}
    noted = settings.get("auto_mapping")
    if isinstance(noted, Mapping) and isinstance(noted.get("base_model_class"), str):
        return str(noted["base_model_class"])
    table = _TABLES.get(str(settings.get("task_type") or kind))
    if table is None:
        return None
    try:
        from transformers.models.auto import modeling_auto
    except ImportError:  # whoever loads the model names its class anyway
        return None
    name = getattr(modeling_auto, table).get(config.get("model_type"))
    return name if isinstance(name, str) else None
