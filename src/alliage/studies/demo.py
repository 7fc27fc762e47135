"""The main job on an embedded example: tune, survey, merge, prune, evaluate, report.

Everything is made through the same verbs that a user has, and kept: a step whose output is there is
not done again.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from os import cpu_count
from pathlib import Path

import alliage
from alliage.checkpoints.writer import OutputFolder
from alliage.studies.digit_models import METHODS, TASKS, model_name, train_base, tune_recipe
from alliage.studies.results import read_table, write_table

OnEvent = Callable[[str, int, int], None]

COMMAND = "alliage demo"
FULL_MERGES = ("average", "task_arithmetic", "ties")
ADAPTER_MERGE = "factor_average"
PRUNED_TASK = "digits:digit"
PRUNED_LAYERS = 6
PRUNINGS = ("first", "last", "symmetric-outer", "alternate-even")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to make.

    Attributes:
        stage: steps of one stage do not need each other, only earlier stages.
        what: for people.
        out: the folder that the step makes; it exists only when complete.
        make: makes it.
    """

    stage: int
    what: str
    out: Path
    make: Callable[[], object]


def steps(folder: str | Path) -> list[Step]:
    """Everything that the demo makes, by stages."""
    home = Path(folder)
    base, results = home / "base", home / "results"
    tuned = {
        (task, method): home / "models" / model_name(task, method)
        for method in METHODS
        for task in TASKS
    }
    full, adapters = ([tuned[task, method] for task in TASKS] for method in METHODS)
    merged = {method: home / "merged" / method for method in (*FULL_MERGES, ADAPTER_MERGE)}
    whole = tuned[PRUNED_TASK, "full"]
    pruned = {
        strategy: home / "pruned" / f"{whole.name}-{PRUNED_LAYERS}-{strategy}"
        for strategy in PRUNINGS
    }
    repaired = pruned["first"].with_name(f"{pruned['first'].name}-tuned")

    make: Callable[[], object]
    made = [Step(0, "train the base, 12 layers", base, partial(train_base, base))]
    for (task, method), out in tuned.items():
        make = partial(_tune, base, task, method, out)
        made.append(Step(1, f"tune {out.name}", out, make))
    surveyed = results / "distances"
    make = partial(_compare, base, [*full, *adapters], surveyed)
    made.append(Step(2, "survey all models", surveyed, make))
    for method, out in merged.items():
        models = adapters if method == ADAPTER_MERGE else full
        make = partial(alliage.merge, method, base=base, models=models, out=out)
        made.append(Step(2, f"merge by {method}", out, make))
    for strategy, out in pruned.items():
        make = partial(alliage.prune, whole, out, strategy=strategy, keep=PRUNED_LAYERS)
        made.append(Step(2, f"prune to {PRUNED_LAYERS} layers, {strategy}", out, make))
    make = partial(_tune, pruned["first"], PRUNED_TASK, "full", repaired)
    made.append(Step(3, "tune a pruned model again", repaired, make))

    judged: list[tuple[Path, Sequence[str]]] = [(out, [task]) for (task, _), out in tuned.items()]
    judged += [(out, TASKS) for out in merged.values()]
    judged += [(out, [PRUNED_TASK]) for out in (*pruned.values(), repaired)]
    for model, tasks in judged:
        out = results / "scores" / model.name
        make = partial(_evaluate, model, tasks, out)
        made.append(Step(4, f"evaluate {model.name}", out, make))
    return made


def run_demo(folder: str | Path, *, on_event: OnEvent | None = None) -> Path:
    """Make everything that is not there yet.

    Steps that do not need each other run in processes of their own, one torch thread each: with
    models as small as these, threads would mostly wait for one another.

    Args:
        folder: made if missing; what earlier runs finished in it is kept.
        on_event: called with (what was made, steps done, steps).

    Returns:
        the results folder, from which `alliage report` makes its page.
    """
    notify = on_event or (lambda *_: None)
    wanted = steps(folder)
    missing = [step for step in wanted if not step.out.exists()]
    done = len(wanted) - len(missing)
    if done:
        notify("kept from earlier", done, len(wanted))
    if missing:
        with ProcessPoolExecutor(
            cpu_count(), multiprocessing.get_context("spawn"), initializer=_one_torch_thread
        ) as pool:
            for _, stage in groupby(missing, key=lambda step: step.stage):
                running = {pool.submit(step.make): step for step in stage}
                try:
                    for future in as_completed(running):
                        future.result()
                        done += 1
                        notify(running[future].what, done, len(wanted))
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    return Path(folder) / "results"


def mean_scores(results: str | Path) -> dict[str, float]:
    """Mean accuracy over the tasks of the single models and of each merged model.

    Returns:
        "single (full)", "single (lora)" and the merge methods -> mean accuracy.
    """
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


def _tune(base: Path, task: str, method: str, out: Path) -> None:
    alliage.tune(tune_recipe(base, task, method), out=out)


def _compare(base: Path, models: Sequence[Path], out: Path) -> None:
    survey = alliage.compare(base, models, modules="q,v")
    with OutputFolder(out) as folder:
        write_table(folder.staging, "distances", survey.to_rows(), command=COMMAND)


def _evaluate(model: Path, tasks: Sequence[str], out: Path) -> None:
    rows = alliage.evaluate(model, tasks).to_rows()
    with OutputFolder(out) as folder:
        for table in ("models", "scores", "reliability"):
            write_table(folder.staging, table, rows[table], command=COMMAND)


def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)
