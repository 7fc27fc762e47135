"""Where real models interfere (arXiv:2306.01708, figures 4, 6, 9, 10), and what counting costs.

    python -m benchmarks interference              what it costs, then all families
    python -m benchmarks interference --family texts-lora --home FOLDER

Families are those of merge_quality, tuned on the spot or found in the home.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._merge_families import FAMILIES, SEEDS, prepare
from benchmarks._models import BASE, TUNED, make_family, weight_files
from benchmarks._processes import Measured, floor, measure, median
from benchmarks._real_data import missing
from benchmarks._report import OUT, report

if TYPE_CHECKING:
    from alliage.geometry import Interference

SIZES = ("0.1M", "34M", "336M")
RUNS = 3
THREADS = (1, 2)
COST = "cost"
TOP_K = 0.2
# In this process's own name space, so that other versions of the package can be measured.
_COMMAND = "from alliage.cli import main; main()"


def main() -> None:
    """Measure what was asked for: the cost, families, or both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks interference")
    parser.add_argument("--family", choices=[*FAMILIES, COST], action="append")
    parser.add_argument("--home", type=Path, help="Keep models there, and use those that are.")
    options = parser.parse_args(list(dropwhile(lambda word: word[0] != "-", sys.argv[1:])))
    asked = options.family or [COST, *FAMILIES]
    if COST in asked:
        measure_cost(SIZES)
    names = [name for name in asked if name != COST]
    if not names:
        return
    if reason := missing({task for name in names for task in FAMILIES[name].tasks}):
        print(f"interference: real models skipped, {reason}.")
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(options.home or folder).absolute()
        report_families({name: count_family(name, home / name) for name in names})


# -- what it costs


def measure_cost(sizes: Sequence[str]) -> None:
    """Time the command as models grow, with each number of threads in turn."""
    rows, details = [], {}
    _run_command(make_family(sizes[0]), 1)  # libraries are read once
    for size in sizes:
        family = make_family(size)
        files = weight_files(family)
        runs: dict[int, list[Measured]] = {threads: [] for threads in THREADS}
        reading = []
        for _ in range(RUNS):
            reading.append(sum(floor(files, 1, OUT / "interference.scratch")))
            for threads in THREADS:
                runs[threads].append(_run_command(family, threads))
        read = sum(file.stat().st_size for file in files) / 1e9
        one, two = (median(runs[threads], "wall") for threads in THREADS)
        memory = max(run.anonymous for each in runs.values() for run in each)
        rows.append(
            {
                "parameters": size,
                "inputs, GB": f"{read:.2f}",
                "seconds": f"{one:.1f} / {two:.1f}",
                "gain": f"{one / two:.2f}",
                "processor seconds": f"{median(runs[THREADS[0]], 'cpu'):.1f}",
                "reading the inputs once, s": f"{statistics.median(reading):.2f}",
                "memory, MiB": f"{memory / 2**20:.0f}",
            }
        )
        details[size] = {
            str(threads): [(run.wall, run.cpu, run.anonymous) for run in each]
            for threads, each in runs.items()
        }
    note = (
        f"`alliage interference` on a base and four Llama-shaped models in bfloat16, as a whole "
        f"command; medians of {RUNS} runs in turn, with {THREADS[0]} and {THREADS[1]} threads. "
        "Memory: peak of anonymous memory of the process, the most of all runs; the libraries "
        "alone take that of the smallest models. Reading: `cat` of the inputs to /dev/null."
    )
    report(
        "interference_cost",
        "Counting interference as models grow",
        rows,
        note=note,
        details={"runs": details},
        command="interference --family cost",
    )


def _run_command(family: Path, threads: int) -> Measured:
    models = [family / name for name in TUNED]
    options = ["--threads", str(threads), "--json", "-q"]
    command = [sys.executable, "-c", _COMMAND, "interference", "--base", family / BASE]
    return measure([*command, *models, *options])


# -- real models


def count_family(name: str, home: Path) -> dict[str, list[Interference]]:
    """Interference of all tasks with each seed, "tasks"; of each task's seeds, "seeds"."""
    import alliage

    family = FAMILIES[name]
    home.mkdir(parents=True, exist_ok=True)
    wanted = [home / f"{task}-{seed}" for task in family.tasks for seed in SEEDS]
    if not all(model.exists() for model in wanted):
        prepare(family, home, known=False)

    def count(models: Iterable[tuple[str, int]]) -> Interference:
        named = {f"{task}-{seed}": home / f"{task}-{seed}" for task, seed in models}
        return alliage.interference(home / family.base, named, TOP_K)

    found = {
        "tasks": [count((task, seed) for task in family.tasks) for seed in SEEDS],
        "seeds": [count((task, seed) for seed in SEEDS) for task in family.tasks],
    }
    print(f"{name}: counted.", flush=True)
    return found


def report_families(found: Mapping[str, Mapping[str, Sequence[Interference]]]) -> None:
    """A table for each of the paper's figures."""
    command = "interference" + "".join(f" --family {name}" for name in found)
    for name, title, rows, note in (
        ("number", "Sign conflicts by the number of models", _by_number(found), _NUMBER),
        ("top_k", "Sign conflicts by the share kept", _by_share(found), _SHARE),
        ("places", "Sign conflicts by kind of module and layer", _by_place(found), _PLACE),
        ("pairs", "Pairs of models: sign conflict and overlap", _by_pair(found), _PAIR),
        ("magnitudes", "Redundant and influential parameters", _magnitudes(found), _MAGNITUDE),
    ):
        report(f"interference_{name}", title, rows, note=note, command=command)


def _by_number(found: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for number in range(2, 9):
        row = {"models": str(number)}
        for name, runs in found.items():
            tables = [run.by_number().sel(number=number) for run in runs["tasks"]]
            row[f"{_title(name)}: of all"] = _percent(tables, "conflict_of_all")
            row[f"{_title(name)}: of shared"] = _percent(tables, "conflict")
            row[f"{_title(name)}: random signs"] = _percent(tables, "random")
        rows.append(row)
    return rows


def _by_share(found: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for tenths in range(1, 11):
        row = {"kept": f"{tenths * 10} %"}
        for name, runs in found.items():
            for of, several in (("8 tasks", runs["tasks"]), ("3 seeds of one task", runs["seeds"])):
                tables = [run.conflicts().sel(top_k=tenths / 10, group="model") for run in several]
                row[f"{_title(name)}: {of}"] = _percent(tables, "conflict_of_all")
        rows.append(row)
    return rows


def _by_place(found: Mapping[str, Any]) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    columns = [f"{_title(name)}: {of}" for name in found for of in ("of shared", "random signs")]
    for name, runs in found.items():
        for by in ("kind", "layer"):
            tables = [run.conflicts(by).sel(top_k=TOP_K) for run in runs["tasks"]]
            for group in tables[0]["group"].values.tolist():
                key = group if by == "kind" else group.rpartition(".")[2]
                key = f"layer {key}" if key.isdigit() else key
                if by == "layer" and key == group:
                    continue
                row = rows.setdefault(key, {"where": key, **dict.fromkeys(columns, "")})
                here = [table.sel(group=group) for table in tables]
                row[f"{_title(name)}: of shared"] = _percent(here, "conflict")
                row[f"{_title(name)}: random signs"] = _percent(here, "random")
    return [*rows.values()]


def _by_pair(found: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for name, runs in found.items():
        row = {"family": _title(name)}
        for of, several in (("two tasks", runs["tasks"]), ("two seeds of one task", runs["seeds"])):
            for measure_ in ("conflict", "overlap"):
                values = [
                    float(pairs[measure_][i, j])
                    for run in several
                    for pairs in [run.pairs().sel(top_k=TOP_K, group="model")]
                    for i, j in combinations(range(len(run.names)), 2)
                ]
                mean, low, high = statistics.mean(values), min(values), max(values)
                row[f"{of}: {measure_}"] = f"{mean:.1%} ({low:.1%} to {high:.1%})"
        rows.append(row)
    return rows


def _magnitudes(found: Mapping[str, Any]) -> list[dict[str, str]]:
    from alliage.geometry.interference.steps import STEPS

    groups = ("redundant", "for one model", "for several models")
    labels = ("redundant", "for one", "for several")
    rows = [{"": "share of the parameters"}]
    for name, runs in found.items():
        for group, label in zip(groups, labels, strict=True):
            counts = [run.magnitudes()["parameters"] for run in runs["tasks"]]
            shares = [float(each.sel(influence=group) / each.sum()) for each in counts]
            rows[0][f"{_title(name)}: {label}"] = f"{statistics.mean(shares):.1%}"
    for step, meaning in STEPS.items():
        row = {"": meaning}
        for name, runs in found.items():
            tables = [run.magnitudes()["magnitude"] for run in runs["tasks"]]
            for group, label in zip(groups, labels, strict=True):
                ratios = [
                    float(t.sel(step=step, influence=group))
                    / float(t.sel(step="ties", influence="for one model"))
                    for t in tables
                ]
                row[f"{_title(name)}: {label}"] = f"{statistics.mean(ratios):.3f}"
        rows.append(row)
    return rows


def _title(name: str) -> str:
    return FAMILIES[name].title


def _percent(tables: Sequence[Any], measure_: str) -> str:
    """The mean over runs, and their standard deviation."""
    values = [float(table[measure_]) for table in tables]
    return f"{statistics.mean(values):.1%} ± {statistics.stdev(values) * 100:.1f}"


_MODELS = "Eight tasks tuned from one base, three seeds: means over seeds ± standard deviation. "
_NUMBER = (
    f"{_MODELS}Each model keeps its {TOP_K:.0%} largest entries; a parameter is in conflict where "
    "those that keep it do not all have one sign. Of all: of all parameters, as in figure 4 of "
    "arXiv:2306.01708; of shared: of those that two or more keep; random signs: what the latter "
    "would be. Up to ten subsets of each size."
)
_SHARE = (
    f"{_MODELS}Share of all parameters, as in figure 9 of arXiv:2306.01708; of a task's three "
    "seeds, means over tasks."
)
_PLACE = f"{_MODELS}Among all eight models, each with its {TOP_K:.0%} largest entries."
_PAIR = (
    f"Each model keeps its {TOP_K:.0%} largest entries; means over pairs, least and most. Overlap "
    "is Jaccard's; of random places it would be 11.1 %. Random signs conflict in 50 %."
)
_MAGNITUDE = (
    "Eight tasks tuned from one base, three seeds: means over seeds. Mean |merged task vector| "
    "after each step, in units of what TIES leaves of parameters that one model keeps in its "
    f"{TOP_K:.0%}; as in figures 6 and 11 of arXiv:2306.01708."
)
