"""The models' task heads, kept beside a merged body.

A head belongs to one task: averaging two of them means nothing. Each goes, with its labels, into
`heads/<model>/`, from where `alliage evaluate` puts it back on the merged body.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from alliage.checkpoints import Checkpoint, dtypes, provenance
from alliage.checkpoints.labels import config_labels, head_outputs
from alliage.checkpoints.reference import HEADS, read_json
from alliage.checkpoints.writer import OutputFolder, TensorWriter, plan_layout
from alliage.errors import AlliageError, Problem
from alliage.merging.engine.values import widened
from alliage.merging.planning.plan import Plan

_BLOCK = 2**20  # elements looked at together
_KINDS = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
}


def write_heads(plan: Plan, folder: OutputFolder) -> None:
    """Write each model's head.safetensors and head.json.

    Raises:
        AlliageError: a head holds NaN or infinity; each tensor that does.
    """
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
