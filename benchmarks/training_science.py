"""Training science on real images: critical periods, the Fisher trace, early and late dropout.

The two experiments of course 002 on how training starts (arXiv:1711.08856, arXiv:2303.01500), with
small models from scratch on Kuzushiji-MNIST. Needs a folder of data sets (ALLIAGE_DATA, or
shared/data beside the repository).
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._real_data import DATA
from benchmarks._report import report

TASK = "kmnist"
SEEDS = (0, 1, 2)
CLEAR = 20  # epochs after a deficit
DEFICITS = (5, 10, 20)  # epochs with it, from the first
TOTAL, WINDOW = 30, 6  # epochs of a run with a window, and of the window
STARTS = (0, 6, 12, 18, 24)
EPOCHS = 30  # of a run with dropout
_COMMON = {"batch_size": 64, "learning_rate": 3e-3, "train_limit": 1500}
_CNN = {
    **_COMMON,
    "model": "reference:convnext",
    "reference": {"parameters": 20_000, "patch": 4},
    "schedule": {"name": "constant"},
}
_VIT = {
    **_COMMON,
    "model": "reference:vit",
    "reference": {"parameters": 30_000, "patch": 8},
    "schedule": {"name": "cosine"},
    "warmup": 0.1,
}
_FISHER = {"examples": 32}
_CONFIDENCE = 0.95


class Setting(NamedTuple):
    """One line of the table.

    Attributes:
        experiment: which.
        name: what is different.
        recipe: without its seed and task.
        normal: the name of the line that it is compared with, in the same experiment.
    """

    experiment: str
    name: str
    recipe: Mapping[str, Any]
    normal: str | None


class Found(NamedTuple):
    """What one run came to.

    Attributes:
        accuracy: on validation and test split together.
        loss: mean training loss.
        traces: (epoch, trace of the Fisher information of the whole model), where measured.
    """

    accuracy: float
    loss: float
    traces: tuple[tuple[float, float], ...]


def main() -> None:
    """Run every setting with every seed, on as many processes as cores, and write the table."""
    if not (DATA / TASK).is_dir():
        print(f"training_science: skipped, no {TASK} in {DATA}; set ALLIAGE_DATA.")
        return
    started = time.perf_counter()
    chosen = settings()
    jobs = [(setting, seed) for setting in chosen for seed in SEEDS]
    jobs.sort(key=lambda job: -job[0].recipe["epochs"])  # the longest first: none waits at the end
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        waiting = {
            (setting[:2], seed): pool.submit(run, setting.recipe, seed, DATA / TASK)
            for setting, seed in jobs
        }
        results = {
            setting[:2]: [waiting[setting[:2], seed].result() for seed in SEEDS]
            for setting in chosen
        }
    minutes = (time.perf_counter() - started) / 60
    details = {
        "minutes": minutes,
        "runs": [
            {"experiment": key[0], "setting": key[1], "seeds": [run._asdict() for run in runs]}
            for key, runs in results.items()
        ],
    }
    title = "Critical periods and early dropout on real images"
    report("training_science", title, rows(chosen, results), note=_note(minutes), details=details)


def settings() -> list[Setting]:
    """Every line: each deficit beside normal training of the same length."""
    lines = []
    for epochs in (0, *DEFICITS):
        length = {**_CNN, "epochs": epochs + CLEAR}
        if epochs in (0, DEFICITS[-1]):
            length["fisher_trace"] = {**_FISHER, "every": _steps_in(2)}
        normal = f"none, {epochs + CLEAR} epochs"
        lines.append(Setting("blurred at first", normal, length, None))
        if epochs:
            blurred = {**length, "deficit": {"kind": "blur", "end": epochs}}
            lines.append(
                Setting("blurred at first", f"{epochs} epochs, then {CLEAR}", blurred, normal)
            )
    whole = {**_CNN, "epochs": TOTAL}
    lines.append(Setting("blurred for a while", f"none, {TOTAL} epochs", whole, None))
    for start in STARTS:
        deficit = {"kind": "blur", "start": start, "end": start + WINDOW}
        name = f"epochs {start + 1} to {start + WINDOW} of {TOTAL}"
        lines.append(
            Setting(
                "blurred for a while", name, {**whole, "deficit": deficit},
                f"none, {TOTAL} epochs",
            )
        )  # fmt: skip
    lines.append(Setting("dropout", "none", {**_VIT, "epochs": EPOCHS}, None))
    for mode in ("early", "late", "standard"):
        half = {} if mode == "standard" else {"cutoff": 0.5}
        for technique, rate in (("dropout", 0.1), ("stochastic_depth", 0.2)):
            recipe = {**_VIT, "epochs": EPOCHS, technique: {"rate": rate, "mode": mode, **half}}
            name = f"{mode} {technique.replace('_', ' ')} {rate}"
            lines.append(Setting("dropout", name, recipe, "none"))
    return lines


def run(recipe: Mapping[str, Any], seed: int, task: Path) -> Found:
    """Tune with a seed, and judge by every image that was not trained on."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    import alliage

    torch.set_num_threads(1)  # as many processes as cores
    with tempfile.TemporaryDirectory() as home:
        out = Path(home) / "out"
        record = alliage.tune(**{**recipe, "task": task, "seed": seed}, out=out)
        splits = ("validation", "test")
        parts = [alliage.evaluate(out, task, split=split)[task.name] for split in splits]
    right = sum(part.metrics["accuracy"] * part.examples for part in parts)
    traces: dict[float, float] = {}
    for row in record.fisher_trace:
        traces[row["epoch"]] = traces.get(row["epoch"], 0.0) + row["trace"]
    total = sum(part.examples for part in parts)
    return Found(right / total, record.loss, tuple(traces.items()))


def rows(
    chosen: Sequence[Setting], results: Mapping[tuple[str, str], Sequence[Found]]
) -> list[dict[str, str]]:
    """The table: means over seeds with intervals, and differences seed by seed."""
    table = []
    for setting in chosen:
        found = results[setting[:2]]
        accuracies = [run.accuracy for run in found]
        difference = ""
        if setting.normal is not None:
            normal = results[setting.experiment, setting.normal]
            pairs = zip(accuracies, normal, strict=True)
            difference = _shown([mine - other.accuracy for mine, other in pairs], "+.1f")
        table.append(
            {
                "experiment": setting.experiment,
                "setting": setting.name,
                "accuracy": _shown(accuracies),
                "against normal": difference,
                "training loss": f"{statistics.mean(run.loss for run in found):.3f}",
                "Fisher trace: highest (epoch), last": _course([run.traces for run in found]),
            }
        )
    return table


def interval(values: Sequence[float]) -> float:
    """Half of the t interval of a mean."""
    from scipy import stats

    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * error)


def _shown(values: Sequence[float], form: str = ".1f") -> str:
    return f"{100 * statistics.mean(values):{form}} ± {100 * interval(values):.1f}"


def _course(traces: Sequence[Sequence[tuple[float, float]]]) -> str:
    """The mean curve's highest point and its last one."""
    if not traces[0]:
        return ""
    epochs = [epoch for epoch, _ in traces[0]]
    columns = zip(*(dict(run).values() for run in traces), strict=True)
    means = [statistics.mean(values) for values in columns]
    highest = max(range(len(means)), key=means.__getitem__)
    return f"{means[highest]:.3g} ({epochs[highest]:.0f}), {means[-1]:.3g}"


def _steps_in(epochs: int) -> int:
    return epochs * math.ceil(_COMMON["train_limit"] / _COMMON["batch_size"])


def _note(minutes: float) -> str:
    return (
        f"Accuracy in % on the 2,000 images of `{TASK}` that were not trained on, after training "
        f"on {_COMMON['train_limit']:,}; mean and {_CONFIDENCE:.0%} t interval over {len(SEEDS)} "
        "seeds (of weights and order), differences seed by seed. Blurred: shrunk to 8 × 8 pixels "
        "and enlarged again (arXiv:1711.08856); normal training is of the same length. ConvNeXt "
        f"of {_CNN['reference']['parameters']:,} parameters, AdamW at a constant "
        f"{_COMMON['learning_rate']:g}. Fisher trace: of the whole model, at labels drawn from it, "
        f"on {_FISHER['examples']} training images as they are shown, every second epoch. Dropout "
        f"(arXiv:2303.01500): ViT of {_VIT['reference']['parameters']:,} parameters, {EPOCHS} "
        "epochs with warm-up and cosine to 10 %; early up to half of the steps, late from there. "
        f"{minutes:.0f} minutes in all, one thread for each process and as many processes as cores."
    )
