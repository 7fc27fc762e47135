"""The task vectors of models that are given by reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from alliage.checkpoints import Checkpoint
from alliage.checkpoints import open as open_checkpoint
from alliage.errors import AlliageError, UsageError
from alliage.vectors import Vector
from alliage.vectors import open as open_vector

Ref = str | Path | Checkpoint


def open_vectors(base: Ref, models: Sequence[Ref] | Mapping[str, Ref]) -> list[Vector]:
    """Open models tuned from one base; no tensor is read.

    Args:
        base: the common ancestor: a folder, a weight file, a hub id or an open checkpoint.
        models: full models and adapters, or names with their models. Folders of one name in
            different places go by their whole path.

    Raises:
        UsageError: a reference that means nothing.
        AlliageError: models that do not fit the base; every misfit.
    """
    origin = open_checkpoint(base)
    entries: list[tuple[str | None, Ref]] = (
        list(models.items()) if isinstance(models, Mapping) else [(None, ref) for ref in models]
    )
    vectors: list[Vector] = []
    errors: list[AlliageError] = []
    for name, ref in entries:
        try:
            vectors.append(open_vector(ref, origin, name=name))
        except AlliageError as error:
            errors.append(error)
    if errors:
        usage = all(isinstance(error, UsageError) for error in errors)
        problems = [problem for error in errors for problem in error.problems]
        raise UsageError(problems) if usage else AlliageError(problems)
    counts = Counter(vector.name for vector in vectors)
    for vector, (_, ref) in zip(vectors, entries, strict=True):
        if counts[vector.name] > 1:
            vector.named(ref.ref if isinstance(ref, Checkpoint) else str(ref))
    return vectors
