"""From a choice of layers to a plan: headers only, every problem at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alliage.checkpoints import Checkpoint
from alliage.checkpoints.upload import local_destination
from alliage.checkpoints.writer import MAX_SHARD_BYTES, Layout, plan_layout, refuse_existing
from alliage.errors import AlliageError, Problem, UsageError
from alliage.pruning import config, families, strategies


@dataclass(frozen=True, slots=True)
class PruningPlan:
    """What a pruning will do.

    Attributes:
        checkpoint: the model, open.
        stack: its layers.
        keep: those that stay, ascending.
        recipe: how they were chosen, as plain values.
        origins: tensor name in the output -> in the model.
        config: config.json of the output.
        layout: the output's weight files.
    """

    checkpoint: Checkpoint
    stack: families.Stack
    keep: tuple[int, ...]
    recipe: dict[str, Any]
    origins: dict[str, str] = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    layout: Layout = field(repr=False)

    @property
    def bytes_kept(self) -> int:
        """Bytes of the tensors that stay."""
        specs = self.checkpoint.specs()
        return sum(specs[name].nbytes for name in self.origins.values())

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "model": self.checkpoint.ref,
            "stack": self.stack.name,
            "layers": self.stack.n_layers,
            "keep": list(self.keep),
            "remove": sorted(set(range(self.stack.n_layers)) - set(self.keep)),
            "renamed": {str(old): new for new, old in enumerate(self.keep) if old != new},
            "tensors": len(self.origins),
            "bytes": self.checkpoint.nbytes,
            "bytes_to_write": self.bytes_kept,
            "output_files": list(self.layout.shards),
        }


def plan(
    checkpoint: Checkpoint,
    *,
    strategy: str | None = None,
    keep: int | None = None,
    scores: Sequence[float] | None = None,
    keep_layers: Sequence[int] | None = None,
    out: str | Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> PruningPlan:
    """Choose layers, by a strategy or one by one, and lay out the model that keeps only them.

    Args:
        checkpoint: a full model with its config.json.
        strategy: one of `strategies.STRATEGIES`.
        keep: with a strategy, how many layers stay.
        scores: for strategies by score, one number for each layer.
        keep_layers: instead of a strategy: the layers that stay, ascending, from 0.
        out: the folder to be written, if it is to be checked as well.
        max_shard_bytes: tensors in one output file.

    Raises:
        UsageError: something is wrong with the arguments.
        AlliageError: the model cannot lose these layers. Either names every problem found.
    """
    errors: list[AlliageError] = []
    found = None
    chosen: tuple[int, ...] = ()
    new_config: dict[str, Any] = {}
    with _collected(errors):
        found = _find(checkpoint)
    with _collected(errors):
        n_layers = found[1].n_layers if found else None
        chosen = _choose(n_layers, strategy, keep, scores, keep_layers)
    if out is not None:
        with _collected(errors):
            refuse_existing(local_destination(out))
    if found and chosen:
        family, stack = found
        assert checkpoint.config is not None
        if obstacle := family.obstacle(checkpoint.config, chosen):
            errors.append(AlliageError(Problem(checkpoint.ref, f"{obstacle}.")))
        with _collected(errors):
            where = f"{checkpoint.ref}: config.json"
            new_config = config.reindexed(checkpoint.config, family, stack, chosen, where)
    if errors:
        worst = max(errors, key=lambda error: error.exit_code)
        raise type(worst)([problem for error in errors for problem in error.problems])
    assert found is not None
    specs = checkpoint.specs()
    origins = _origins(specs, stack, chosen)
    layout = plan_layout(
        ((name, specs[old].dtype, specs[old].shape) for name, old in origins.items()),
        max_shard_bytes=max_shard_bytes,
    )
    recipe: dict[str, Any] = {"keep_layers": list(chosen)}
    if strategy is not None:
        recipe = {"strategy": strategy, "keep": keep}
        recipe |= {"scores": [float(score) for score in scores]} if scores is not None else {}
    return PruningPlan(checkpoint, stack, chosen, recipe, origins, new_config, layout)


@contextmanager
def _collected(errors: list[AlliageError]) -> Iterator[None]:
    try:
        yield
    except AlliageError as error:
        errors.append(error)


def _find(checkpoint: Checkpoint) -> tuple[families.Family, families.Stack]:
    if checkpoint.adapter is not None:
        raise AlliageError(
            Problem(
                checkpoint.ref,
                "is an adapter: its layers are those of its base, which it does not hold.",
                "Prune the base and tune a new adapter on it, or merge this one into its base.",
            )
        )
    if checkpoint.config is None:
        raise AlliageError(
            Problem(
                checkpoint.ref,
                "has no config.json beside its weights: the number of its layers is not certain.",
                "Give the model's folder.",
            )
        )
    return families.find(checkpoint.specs(), checkpoint.config, checkpoint.ref)


def _choose(
    n_layers: int | None,
    strategy: str | None,
    keep: int | None,
    scores: Sequence[float] | None,
    keep_layers: Sequence[int] | None,
) -> tuple[int, ...]:
    """The chosen layers; none where `n_layers` is not known.

    Raises:
        UsageError: with every problem of the choice.
    """
    by_strategy = {"strategy": strategy, "keep": keep, "scores": scores}
    if keep_layers is not None:
        clashes = [key for key, value in by_strategy.items() if value is not None]
        if clashes:
            what = "goes with no list of layers."
            raise UsageError([Problem(key, what, "Give one or the other.") for key in clashes])
        if problems := _list_problems(keep_layers, n_layers):
            raise UsageError(problems)
        return tuple(keep_layers) if n_layers is not None else ()
    missing = [key for key in ("strategy", "keep") if by_strategy[key] is None]
    if missing:
        what = "missing: layers are chosen by a strategy and their number, or by a list."
        raise UsageError([Problem(key, what) for key in missing])
    assert strategy is not None
    assert keep is not None
    if n_layers is None:
        return ()
    return tuple(strategies.keep_layers(strategy, n_layers, keep, scores))


def _list_problems(layers: Sequence[int], n_layers: int | None) -> list[Problem]:
    if not layers:
        return [Problem("keep_layers", "no layer would stay: at least one must.")]
    problems = [
        Problem("keep_layers", f"{layer!r} is no layer's number.", "Layers count from 0.")
        for layer in layers
        if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0
    ]
    if problems:
        return problems
    if n_layers is not None:
        problems += [
            Problem("keep_layers", f"there is no layer {layer}: they go from 0 to {n_layers - 1}.")
            for layer in sorted(set(layers))
            if layer >= n_layers
        ]
    repeated = sorted({layer for layer in layers if list(layers).count(layer) > 1})
    problems += [Problem("keep_layers", f"layer {layer} is given twice.") for layer in repeated]
    if not repeated and list(layers) != sorted(layers):
        given, right = ",".join(map(str, layers)), ",".join(map(str, sorted(layers)))
        what = f"{given} is not ascending, and removing layers does not reorder the others."
        problems.append(Problem("keep_layers", what, f"Give {right}."))
    return problems


def _origins(names: Iterable[str], stack: families.Stack, keep: Sequence[int]) -> dict[str, str]:
    """Tensor names after the layers are numbered anew -> before."""
    place = {layer: position for position, layer in enumerate(keep)}
    origins = {}
    for name in names:
        inside = stack.split(name)
        if inside is None:
            origins[name] = name
        elif inside[0] in place:
            origins[stack.join(place[inside[0]], inside[1])] = name
    return origins
