"""Statistics of models on data, in safetensors files: what some merges read beside the weights.

A file holds, under the names of one model's weights,

    fisher              the diagonal Fisher information, of the weight's shape
    regmean             G = E xxᵀ over the inputs x of a linear layer, [d_in, d_in]; its diagonal is
                        their second moment, and NAME.input_mean is E x, [d_in]
    regmean_plus_plus   G over the inputs that the layer has where all layers before it are merged

and in its metadata what they are of: the data, and the SHA-256 of every file of the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import alliage
from alliage.checkpoints import provenance
from alliage.checkpoints.checkpoint import Checkpoint
from alliage.checkpoints.checkpoint import open as open_checkpoint
from alliage.checkpoints.reference import STATISTICS, has_weight_ending
from alliage.checkpoints.writer import NEVER_SHARD, TensorWriter, one_file, plan_layout
from alliage.errors import AlliageError, Problem, UsageError

StatisticsKind = Literal["fisher", "regmean", "regmean_plus_plus"]
KINDS: tuple[StatisticsKind, ...] = get_args(StatisticsKind)
assert {f"{kind}.safetensors" for kind in KINDS} == set(STATISTICS)

MEAN = ".input_mean"  # behind a weight's name
_FIX = "Collect them anew with alliage statistics."


@dataclass(frozen=True, slots=True)
class Origin:
    """What statistics are of.

    Attributes:
        kind: of the statistics.
        task, split, examples: the data.
        models: what `provenance.describe_input` says of the model, and for an adapter of its base.
        merged_with: for regmean_plus_plus, the digests of every model of the merge, in its order.
        labels: of the Fisher information, how it was made an expectation; else nothing.
        seed: of what was drawn.
        parameters: of the merge method, which the statistics hold for alone.
        transposed: weights that are stored as [in, out].
    """

    kind: StatisticsKind
    task: str
    split: str
    examples: int
    models: Sequence[Mapping[str, Any]]
    merged_with: Sequence[Sequence[str]] = ()
    labels: str = ""
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    transposed: Sequence[str] = ()

    @property
    def digests(self) -> list[str]:
        """The SHA-256 of every weight file of the model."""
        return weight_digests(self.models)

    def metadata(self) -> dict[str, str]:
        """For the file's header."""
        plain = {"kind": self.kind, "task": self.task, "split": self.split, "labels": self.labels}
        numbers = {"examples": str(self.examples), "seed": str(self.seed)}
        others = {
            name: json.dumps(getattr(self, name), ensure_ascii=False)
            for name in ("models", "merged_with", "parameters", "transposed")
        }
        return plain | numbers | others | {"alliage": alliage.__version__}


@dataclass(frozen=True, slots=True)
class Statistics:
    """An open file of statistics.

    Attributes:
        file: the tensors, by the names of the model's weights.
        origin: what they are of.
    """

    file: Checkpoint
    origin: Origin


def weight_digests(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """The SHA-256 of every weight file that `provenance.describe_input` described, sorted."""
    return sorted(
        entry["sha256"]
        for model in models
        for entry in model["files"]
        if has_weight_ending(entry["file"])
    )


def describe_model(checkpoint: Checkpoint, base: Checkpoint | None = None) -> list[dict[str, Any]]:
    """What statistics record of a model; of an adapter, of the base it is applied to, too."""
    described = [provenance.describe_input("model", checkpoint)]
    if base is not None:
        described.append(provenance.describe_input("base", base))
    return described


def default_place(checkpoint: Checkpoint, kind: StatisticsKind) -> Path | None:
    """Where a model's statistics lie unless another file is named."""
    return None if checkpoint.folder is None else checkpoint.folder / f"{kind}.safetensors"


def open_statistics(path: Path) -> Statistics:
    """Open a file of statistics: its header is read, no tensor is.

    Raises:
        UsageError: no such file.
        AlliageError: it holds no statistics, or is damaged.
    """
    if not path.is_file():
        fix = "Collect them: alliage statistics."
        raise UsageError(Problem(str(path), "no statistics there.", fix))
    file = open_checkpoint(path)
    try:
        return Statistics(file, _origin(file.sources[0].metadata))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        file.close()
        what = f"holds no statistics that Alliage wrote: {error!r}."
        raise AlliageError(Problem(str(path), what, _FIX)) from None


def _origin(metadata: Mapping[str, str]) -> Origin:
    if metadata["kind"] not in KINDS:
        raise ValueError(metadata["kind"])
    origin = Origin(
        kind=metadata["kind"],
        task=metadata["task"],
        split=metadata["split"],
        examples=int(metadata["examples"]),
        models=list(json.loads(metadata["models"])),
        merged_with=[list(map(str, each)) for each in json.loads(metadata["merged_with"])],
        labels=metadata["labels"],
        seed=int(metadata["seed"]),
        parameters=dict(json.loads(metadata["parameters"])),
        transposed=list(map(str, json.loads(metadata["transposed"]))),
    )
    if not all(isinstance(each, str) for each in origin.digests):
        raise TypeError("sha256")
    if not all(isinstance(model["ref"], str) for model in origin.models):
        raise TypeError("ref")
    return origin


def written(
    out: Path, shapes: Mapping[str, Sequence[int]], origin: Origin
) -> AbstractContextManager[TensorWriter]:
    """Write a file of float32 statistics; it appears when whole.

    Args:
        out: the new file, whose name ends with .safetensors.
        shapes: of its tensors, each of which must be written.
        origin: what they are of.
    """
    tensors = [(name, "F32", tuple(shape)) for name, shape in shapes.items()]
    layout = plan_layout(
        tensors, stem="statistics", max_shard_bytes=NEVER_SHARD, metadata=origin.metadata()
    )
    return one_file(out, layout)
