"""The main job on an embedded example: tune, survey, merge, prune, evaluate, report.

Everything is made through the same verbs that a user has, and kept: a step whose output is there is
not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import alliage
from alliage.studies.digit_models import METHODS, TASKS, model_name, train_base, tune_recipe
from alliage.studies.results import read_table, write_table

OnEvent = Callable[[str, int, int], None]

COMMAND = "alliage demo"
FULL_MERGES = ("average", "task_arithmetic", "ties")
PRUNED_TASK = "digits:digit"
PRUNED_LAYERS = 6
PRUNINGS = ("first", "last", "symmetric-outer", "alternate-even")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to make.

    Attributes:
        what: for people.
        out: the folder or file that the step makes; it exists only when complete.
        make: makes it.
    """

    what: str
    out: Path
    make: Callable[[], object]


def steps(folder: str | Path) -> list[Step]:
    """Everything that the demo makes, in order; each step needs only earlier ones."""
    home = Path(folder)
    base = home / "base"
    tuned = {
        (task, method): home / "models" / model_name(task, method)
        for method in METHODS
        for task in TASKS
    }
    full = [tuned[task, "full"] for task in TASKS]
    adapters = [tuned[task, "lora"] for task in TASKS]
    merged = {method: home / "merged" / method for method in FULL_MERGES}
    merged_adapters = home / "merged" / "factor_average"
    pruned = {
        strategy: home / "pruned" / f"{model_name(PRUNED_TASK, 'full')}-{strategy}"
        for strategy in PRUNINGS
    }
    repaired = home / "pruned" / f"{model_name(PRUNED_TASK, 'full')}-repaired"

    made = [Step("train the base, 12 layers", base, lambda: train_base(base))]
    made += [
        Step(f"tune {out.name}", out, _tune(base, task, method, out))
        for (task, method), out in tuned.items()
    ]
    made += [
        Step(f"merge by {method}", out, _merge(method, base, full, out))
        for method, out in merged.items()
    ]
    made.append(
        Step(
            "merge adapters by factor_average",
            merged_adapters,
            _merge("factor_average", base, adapters, merged_adapters),
        )
    )
    made += [
        Step(
            f"prune to {PRUNED_LAYERS} layers, {strategy}",
            out,
            _prune(tuned[PRUNED_TASK, "full"], strategy, out),
        )
        for strategy, out in pruned.items()
    ]
    made.append(
        Step(
            "tune a pruned model again",
            repaired,
            _tune(pruned["first"], PRUNED_TASK, "full", repaired),
        )
    )
    surveys = {"full": full, "lora": adapters}
    made += [
        Step(
            f"survey the {method} models",
            home / "results" / method,
            _compare(base, models, home / "results" / method),
        )
        for method, models in surveys.items()
    ]
    singles = [(out, [task]) for (task, _), out in tuned.items()]
    everywhere = [(out, list(TASKS)) for out in (*merged.values(), merged_adapters)]
    shallower = [(out, [PRUNED_TASK]) for out in (*pruned.values(), repaired)]
    made += [
        Step(
            f"evaluate {out.name}",
            home / "results" / "scores" / out.name,
            _evaluate(out, tasks, home),
        )
        for out, tasks in (*singles, *everywhere, *shallower)
    ]
    return made


def run_demo(folder: str | Path, *, on_event: OnEvent | None = None) -> Path:
    """Make everything that is not there yet, and the report.

    Args:
        folder: made if missing; what earlier runs finished in it is kept.
        on_event: called with (what is being made, steps done, steps).

    Returns:
        the report.
    """
    from alliage.report import write_report

    notify = on_event or (lambda *_: None)
    wanted = steps(folder)
    for done, step in enumerate(wanted):
        notify(step.what, done, len(wanted))
        if not step.out.exists():
            step.make()
    notify("report", len(wanted), len(wanted))
    return write_report(Path(folder) / "results", Path(folder) / "report.html")


def mean_scores(folder: str | Path) -> dict[str, float]:
    """Mean accuracy over the tasks of the single models and of each merged model.

    Returns:
        "single (full)", "single (lora)" and the merge methods -> mean accuracy.
    """
    results = Path(folder) / "results"
    models = read_table(results, "models").set_index("model")
    scores = read_table(results, "scores")
    accuracy = scores[scores["metric"] == "accuracy"].join(models, on="model", rsuffix="_of_model")
    means = {}
    for method in METHODS:
        names = [model_name(task, method) for task in TASKS]
        means[f"single ({method})"] = accuracy[accuracy["model"].isin(names)]["value"].mean()
    for name, group in accuracy[accuracy["role"] == "merged"].groupby("model"):
        means[str(name)] = group["value"].mean()
    return {name: float(value) for name, value in means.items()}


def _tune(base: Path, task: str, method: str, out: Path) -> Callable[[], object]:
    return lambda: alliage.tune(tune_recipe(base, task, method), out=out)


def _merge(method: str, base: Path, models: Sequence[Path], out: Path) -> Callable[[], object]:
    return lambda: alliage.merge(method, base=base, models=models, out=out)


def _prune(model: Path, strategy: str, out: Path) -> Callable[[], object]:
    return lambda: alliage.prune(model, out, strategy=strategy, keep=PRUNED_LAYERS)


def _compare(base: Path, models: Sequence[Path], out: Path) -> Callable[[], object]:
    def make() -> None:
        survey = alliage.compare(base, models, modules="q,v")
        write_table(out, "distances", survey.to_rows(), command=COMMAND)

    return make


def _evaluate(model: Path, tasks: Sequence[str], home: Path) -> Callable[[], object]:
    def make() -> None:
        rows = alliage.evaluate(model, tasks, split="test").to_rows()
        out = home / "results" / "scores" / model.name
        for table in ("models", "reliability", "scores"):
            write_table(out, table, rows[table], command=COMMAND)

    return make
