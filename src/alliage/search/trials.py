"""Trying points one after the other, in a study that is kept on disk and can be gone on with."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alliage.errors import AlliageError, Problem, UsageError
from alliage.merging.recipe.schema import MergeRecipe
from alliage.merging.signature import Parameter
from alliage.search.candidates import Score
from alliage.search.space import DIGITS, Point, Range, Search, gathered

STUDY = "study.journal"
_TRIALS = 100  # where the points are endless and nobody says how many
_LARGEST_GRID = 1000  # points that are all tried where nobody says how many
_METHOD = "method"
UNDEFINED = "the metric is not defined for its answers."
_NAME, _SUBJECT, _TRIAL = "alliage", "subject", "trial"

OnEvent = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One point that was tried.

    Attributes:
        number: from 0, in the order of trying.
        method: its name.
        parameters: that were searched.
        score: what the merge is worth; nothing where it cannot be made.
        problem: why it cannot.
        seconds: that it took, the first of all without what had to be loaded.
    """

    number: int
    method: str
    parameters: Mapping[str, Any]
    score: Score | None
    problem: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Attributes:
        trials: all, in their order.
        best: the best of them, the first of equals.
        recipe: of the best.
    """

    trials: tuple[Trial, ...]
    best: Trial
    recipe: MergeRecipe


def search(
    study: Any,
    space: Search,
    score: Callable[[MergeRecipe], Score],
    *,
    maximise: bool,
    trials: int | None = None,
    seed: int = 0,
    on_event: OnEvent | None = None,
) -> Found:
    """Try points: all of a grid, in its order, or as many as asked for, chosen by what was found.

    Points are chosen by a tree-structured Parzen estimator (Bergstra et al. 2011) whose draws
    depend on the seed and on how many were tried: a search that was interrupted goes on as if
    nothing had happened. A merge that cannot be made is noted and passed over.

    Args:
        study: from `open_study`; what was tried in it is not tried again.
        space: the points.
        score: what a point's merge is worth.
        maximise: whether a higher score is better.
        trials: how many points in all; by default the whole grid, or 100 of what is endless.
        seed: of the choice.
        on_event: called with ("searching", done, total).

    Raises:
        AlliageError: no point could be merged.
    """
    grid = space.grid()
    total = trials or (_TRIALS if grid is None or len(grid) > _LARGEST_GRID else len(grid))
    points = grid if grid is not None and len(grid) <= total else None
    total = total if points is None else len(points)
    done = _finished(study)
    tried = {_key(trial.method, trial.parameters): trial for trial in reversed(done)}
    while len(done) < total:
        if on_event is not None:
            on_event("searching", len(done), total)
        wanted = None if points is None else points[len(done)]
        point, running = _ask(study, space, wanted, _seed(seed, len(done)))
        method, values = str(point[0].method), point[1]
        started = time.perf_counter()
        known = tried.get(_key(method, values))
        trial = known or _tried(len(done), space, point, score)
        seconds = time.perf_counter() - started
        trial = replace(trial, number=len(done), seconds=seconds)
        running.set_user_attr(_TRIAL, _plain(trial))
        _tell(study, running.number, trial.score)
        done.append(trial)
        tried.setdefault(_key(method, values), trial)
    if on_event is not None:
        on_event("searching", total, total)
    return _best(space, done, maximise)


def _tried(
    number: int, space: Search, point: Point, score: Callable[[MergeRecipe], Score]
) -> Trial:
    method, values = str(point[0].method), point[1]
    try:
        return trial_of(number, method, values, score(space.recipe_at(point)))
    except AlliageError as error:
        return Trial(number, method, values, None, str(error.problems[0]), 0.0)


def trial_of(
    number: int, method: str, parameters: Mapping[str, Any], score: Score, seconds: float = 0.0
) -> Trial:
    """The trial of a merge that was asked; what is not defined is no score."""
    if math.isnan(score.value):
        return Trial(number, method, parameters, None, UNDEFINED, seconds)
    return Trial(number, method, parameters, score, "", seconds)


def _best(space: Search, done: Sequence[Trial], maximise: bool) -> Found:
    sound = [trial for trial in done if trial.score is not None]
    if not sound:
        raise AlliageError([Problem("search", trial.problem) for trial in done][:8])
    sign = 1 if maximise else -1
    best = max(sound, key=lambda trial: sign * _value(trial))
    chosen = next(each for each in space.spaces if each.method == best.method)
    return Found(tuple(done), best, space.recipe_at((chosen, best.parameters)))


def _value(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score.value


def _key(method: str, parameters: Mapping[str, Any]) -> str:
    return json.dumps([method, dict(sorted(parameters.items()))])


def holds_trials(folder: Path) -> bool:
    """Whether a folder holds a study in which something was tried."""
    path = folder / STUDY
    if not path.exists():
        return False
    with _quiet() as optuna:
        try:
            study = optuna.load_study(study_name=_NAME, storage=_storage(path))
        except KeyError:
            return False
    return any(_TRIAL in kept.user_attrs for kept in study.get_trials(deepcopy=False))


def open_study(folder: Path, subject: Mapping[str, Any], *, maximise: bool) -> Any:
    """The study in a folder, gone on with where something was tried in it, else new.

    Nobody else may be at work in the folder.

    Args:
        folder: made if missing.
        subject: what makes two searches the same, as plain values.
        maximise: whether a higher score is better.

    Raises:
        UsageError: the study that is there is of something else.
    """
    path = folder / STUDY
    folder.mkdir(parents=True, exist_ok=True)
    if holds_trials(folder):
        _drop_torn_line(path)
    else:
        path.unlink(missing_ok=True)  # of a search that came to nothing, perhaps of other models
    with _quiet() as optuna:
        study = optuna.create_study(
            study_name=_NAME,
            storage=_storage(path),
            direction="maximize" if maximise else "minimize",
            load_if_exists=True,
        )
    plain = json.loads(json.dumps(subject))
    known = study.user_attrs.get(_SUBJECT)
    if known is None:
        study.set_user_attr(_SUBJECT, plain)
    elif known != plain:
        other = ", ".join(sorted(key for key in plain if known.get(key) != plain[key]))
        what = f"the search that is here was of other {other}."
        raise UsageError(Problem(str(folder), what, "Choose another folder."))
    return study


@contextmanager
def _quiet() -> Iterator[Any]:
    """Optuna, which says nothing but warnings."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _storage(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def _drop_torn_line(path: Path) -> None:
    """Cut off what a killed search did not write to its end."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("r+b") as file:
            file.truncate(end)


def _finished(study: Any) -> list[Trial]:
    """The trials that came to their end; what was interrupted is tried again."""
    from optuna.trial import TrialState

    while study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        _tell(study, study.ask().number, None)  # wanted by a search that was killed before it began
    found = []
    for kept in study.get_trials(deepcopy=False):
        plain = kept.user_attrs.get(_TRIAL)
        trial = None if plain is None else _trial(plain)
        if kept.state == TrialState.RUNNING:
            _tell(study, kept.number, None if trial is None else trial.score)
        if trial is not None:
            found.append(trial)
    return found


def _tell(study: Any, number: int, score: Score | None) -> None:
    from optuna.trial import TrialState

    if score is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, score.value)


def _plain(trial: Trial) -> dict[str, Any]:
    """A trial as the study keeps it."""
    score = trial.score and [trial.score.value, list(trial.score.by_task)]
    own = {field: getattr(trial, field) for field in ("number", "method", "problem", "seconds")}
    return own | {"parameters": dict(trial.parameters), "score": score}


def _trial(plain: Mapping[str, Any]) -> Trial:
    """What `_plain` gave."""
    score = plain["score"] and Score(plain["score"][0], tuple(plain["score"][1]))
    return Trial(**{**plain, "score": score})


def _seed(seed: int, done: int) -> int:
    """A seed for every draw: those of neighbouring searches have none in common."""
    return int(np.random.SeedSequence([seed, done]).generate_state(1)[0])


def _ask(study: Any, space: Search, wanted: Point | None, seed: int) -> tuple[Point, Any]:
    """The wanted point, or the one that the sampler chooses, and its trial."""
    import optuna

    methods = [str(each.method) for each in space.spaces]
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    if wanted is not None:
        study.enqueue_trial(_flat(space, wanted))
    running = study.ask()
    method = running.suggest_categorical(_METHOD, methods)
    chosen = space.spaces[methods.index(method)]
    axes = space.axes(chosen)
    values = [
        _suggest(running, _label(method, name, model), given, declared)
        for name, model, given, declared in axes
    ]
    names = [axis[:2] for axis in axes]
    return (chosen, gathered(names, values, len(space.recipe.models))), running


def _flat(space: Search, point: Point) -> dict[str, Any]:
    """A point as the study has it."""
    chosen, values = point
    found: dict[str, Any] = {_METHOD: chosen.method}
    for name, model, _, _ in space.axes(chosen):
        value = values[name] if model is None else values[name][model]
        found[_label(str(chosen.method), name, model)] = value
    return found


def _label(method: str, parameter: str, model: int | None) -> str:
    return f"{method}.{parameter}" + ("" if model is None else f"[{model}]")


def _suggest(running: Any, label: str, given: Range, declared: Parameter) -> Any:
    if given.values:
        return running.suggest_categorical(label, given.values)
    grid, whole = given.grid(declared), declared.kind is int
    assert given.low is not None
    assert given.high is not None
    high = given.high if grid is None else grid[-1]  # where the steps from low end
    if whole:
        step = int(given.step or 1)
        return running.suggest_int(label, int(given.low), int(high), step=step, log=given.log)
    found = running.suggest_float(label, given.low, high, step=given.step, log=given.log)
    return found if given.step is None else round(found, DIGITS)
