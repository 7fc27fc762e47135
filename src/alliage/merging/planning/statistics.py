"""Statistics that a merge reads beside the weights: found, and held against the models."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alliage.checkpoints import Checkpoint, provenance
from alliage.checkpoints.statistics import (
    Statistics,
    StatisticsKind,
    default_place,
    open_statistics,
)
from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging.planning.plan import MergedTensor, Plan, Source
from alliage.vectors import Combination, TaskVector, Vector, WholeModel


def open_models_statistics(made: Plan) -> None:
    """Open every model's statistics, where the method needs some.

    Raises:
        UsageError: there are none, a file holds none, or they are of other weights; all of them.
    """
    kind, recipe = made.method.statistics, made.recipe
    asked = [(entry.model, entry.statistics) for entry in recipe.models]
    asked = asked or [(ref, None) for ref in recipe.refs]
    if kind is None or len(made.vectors) < len(asked):  # some could not be opened
        return
    problems: list[Problem] = []
    for (ref, named), vector in zip(asked, made.vectors, strict=True):
        beside = default_place(vector.checkpoints[0], kind)
        place = named or beside
        if place is None or not Path(place).is_file():
            where = "no place for them beside it" if place is None else f"none in {place}"
            what = f"{made.method.name} needs its statistics, and there are {where}."
            fix = f"Collect them: {_command(kind, ref, beside)}."
            if kind != "regmean_plus_plus":
                fix = f"{fix} Or name their file in the recipe: statistics: FILE."
            problems.append(Problem(ref, what, fix))
            continue
        try:
            made.statistics.append(open_statistics(Path(place)))
        except AlliageError as error:
            problems += error.problems
    if not problems:
        digests = _digests(made)
        for (ref, _), found, own in zip(asked, made.statistics, digests, strict=True):
            problems += _misfits(found, kind, ref, own, digests)
    if problems:
        raise UsageError(problems)


def check_statistics(made: Plan) -> None:
    """Hold the statistics against each tensor that is merged.

    Raises:
        AlliageError: one of another shape, or made for another parameter of the method.
    """
    if not made.statistics:
        return
    problems: list[Problem] = []
    partly = without = 0
    for tensor in made.merged:
        found = [each for each in statistics_of(made, tensor) if each is not None]
        partly += 0 < len(found) < len(tensor.sources)
        without += not found
        expected = _shape(made, tensor)
        for file, name in found:
            shape = file.specs()[name].shape
            if shape != expected:
                what = f"has the shape {list(shape)}, expected {list(expected)}."
                problems.append(Problem(f"{file.path}: {name}", what, "Collect them anew."))
        problems += _other_parameters(made, tensor)
    if without == len(made.merged):
        where = str(made.statistics[0].file.path)
        problems.append(Problem(where, "holds nothing of the tensors that are merged."))
    if problems:
        raise AlliageError(list(dict.fromkeys(problems)))
    if made.method.statistics == "fisher" and partly + without:
        what = f"{partly + without} tensors without Fisher information of every model: the data "
        made.notes.append(f"{what}do not touch them, and it counts as zero.")
    elif partly:
        made.notes.append(f"{partly} tensors without the inputs of every model are averaged.")


def statistics_of(made: Plan, tensor: MergedTensor) -> list[tuple[Checkpoint, str] | None]:
    """For each source of a tensor, the file and name of its statistics; nothing where none are."""
    places = []
    for source in tensor.sources:
        file, name = made.statistics[source.vector].file, _name(made, source)
        places.append((file, name) if name in file.specs() else None)
    return places


def stores_inputs_first(made: Plan, tensor: MergedTensor) -> bool:
    """Whether a linear layer's weight is stored as [in, out]."""
    if not made.statistics or len(tensor.spec.shape) != 2:
        return False
    source = tensor.sources[0]
    return _name(made, source) in made.statistics[source.vector].origin.transposed


def _name(made: Plan, source: Source) -> str:
    """A parameter as the model's own files name it; an adapter's as its base's do."""
    vector = made.vectors[source.vector]
    if isinstance(vector, Combination):
        vector = vector.terms[0][1]
    if isinstance(vector, TaskVector | WholeModel) and source.parameter in vector.shapes:
        return vector.source(source.parameter).name
    return source.parameter


def _shape(made: Plan, tensor: MergedTensor) -> tuple[int, ...]:
    shape = tensor.spec.shape
    if made.method.statistics == "fisher":
        return shape
    inputs = shape[0] if stores_inputs_first(made, tensor) else shape[-1]
    return (inputs, inputs)


def _digests(made: Plan) -> list[list[str]]:
    """For each model, the SHA-256 of every weight file that it is made of, sorted."""
    hashed = cache(provenance.hash_weights)  # many adapters have one base
    return [
        sorted(digest for part in _parts(vector, made) for digest in hashed(part))
        for vector in made.vectors
    ]


def _parts(vector: Vector, made: Plan) -> tuple[Checkpoint, ...]:
    """What a model is made of; an adapter, of its base too."""
    whole = vector.terms[0][1] if isinstance(vector, Combination) else vector
    if isinstance(whole, TaskVector | WholeModel) or made.base is None:
        return tuple(vector.checkpoints)
    return (*vector.checkpoints, made.base)


def _misfits(
    found: Statistics,
    kind: StatisticsKind,
    ref: str,
    own: list[str],
    everyone: list[list[str]],
) -> list[Problem]:
    where, origin = str(found.file.path), found.origin
    again = f"Collect them: {_command(kind, ref)}."
    if origin.kind != kind:
        return [Problem(where, f"holds {origin.kind} statistics, expected {kind}.", again)]
    if origin.digests != own:
        of = ", ".join(model["ref"] for model in origin.models)
        what = f"was collected with other weights than {ref} has (then: {of})."
        return [Problem(where, what, again)]
    if origin.merged_with and sorted(map(list, origin.merged_with)) != sorted(everyone):
        what = f"was collected for a merge of {len(origin.merged_with)} models, not of these."
        return [Problem(where, what, again)]
    return []


def _other_parameters(made: Plan, tensor: MergedTensor) -> list[Problem]:
    return [
        Problem(
            f"{key} of {tensor.name}",
            f"is {tensor.arguments[key]}, but {statistics.file.path} holds for {value}.",
            "Set it so, or collect the statistics anew.",
        )
        for statistics in made.statistics
        for key, value in statistics.origin.parameters.items()
        if key in tensor.arguments and tensor.arguments[key] != value
    ]


def _command(kind: StatisticsKind, ref: str, place: Path | None = None) -> str:
    if kind == "regmean_plus_plus":
        return (
            "alliage statistics regmean++ MODEL... --task TASK... -o DIR, and name each model's "
            "file in the recipe: statistics: FILE"
        )
    return f"alliage statistics {kind} {ref} --task TASK -o {place or 'FILE'}"
