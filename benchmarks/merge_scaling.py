"""TIES as models grow: time, threads, memory. Base and four tuned models, bfloat16."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks._models import BASE, TUNED, make_family, weight_files
from benchmarks._processes import floor
from benchmarks._report import OUT, report
from benchmarks.merging import MERGES, SMALLEST, ours_command, run_anew

SIZES = ("34M", "336M", "1.1B")
RUNS = 3
_PAGE_CACHE = 0.9  # the part of free memory that files may fill
THREADS = (1, 2)
_TIES = MERGES["ties"]

_RUN = """
import json, sys, threading, time
import torch
from alliage.merging import parse_recipe, plan, run

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

recipe, out, threads, memory = json.loads(sys.argv[1])
recipe = parse_recipe(recipe)
torch.rand(1000).sort()
before, peak, running = anonymous(), 0, True
def watch():
    global peak
    while running:
        peak = max(peak, anonymous())
        time.sleep(0.005)
thread = threading.Thread(target=watch, daemon=True)
thread.start()
events = []
def note(stage, done, total):
    if stage.startswith(("first pass", "merging")):
        events.append(time.perf_counter())
record = run(plan(recipe, threads=threads, memory=memory), out, on_event=note)
running = False
thread.join()
within = events[-1] - events[0]
found = {"peak": peak - before, "seconds": record.seconds, "within": within}
print(json.dumps(found | {"passes": record.passes}))
"""


def main() -> None:
    """Measure every size that there is room for, smallest first."""
    rows, details = [], {}
    measure_size(make_family(SMALLEST), 1)  # compiled code is cached, libraries are read once
    for size in SIZES:
        family = make_family(size)
        missing = missing_room(family)
        if missing:
            print(f"merge_scaling: {size} left out: {missing}.")
            continue
        runs = measure_size(family, RUNS)
        rows.append(_row(size, family, runs))
        details[size] = runs
    report("merge_scaling", "TIES as models grow", rows, note=_note(), details={"runs": details})


def missing_room(family: Path) -> str:
    """Why merging a family would be timing the disk; empty where it would not."""
    files = weight_files(family)
    needed = (len(files) + 1) * files[0].stat().st_size
    available = psutil.virtual_memory().available
    if needed <= _PAGE_CACHE * available:
        return ""
    return f"its {needed / 1e9:.1f} GB would not stay in {available / 1e9:.1f} GB of memory"


def measure_size(family: Path, runs: int) -> dict[str, list[float]]:
    """Merge a family with each number of threads, inside a process and as a command, in turn.

    Returns:
        What was measured, run by run: "floor", "run, 1", "passes, 1" and "command, 1" for one
        thread and so on, in seconds; bytes of anonymous memory, "command memory" and "run memory";
        the number of "passes".
    """
    found: dict[str, list[float]] = {}
    files = weight_files(family)
    models = [str(family / name) for name in TUNED]
    recipe = {**_TIES.ours, "base": str(family / BASE), "models": models}
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        out = Path(folder) / "out"
        for _ in range(runs):
            seconds = {"floor": sum(floor(files, files[0].stat().st_size, out))}
            for threads in THREADS:
                inside = measure_run(recipe, out, threads=threads)
                seconds[f"run, {threads}"] = inside["seconds"]
                seconds[f"passes, {threads}"] = inside["within"]
                whole = run_anew(ours_command(_TIES, family, out, threads), out)
                seconds[f"command, {threads}"] = whole.wall
            memory = {"command memory": whole.anonymous, "run memory": inside["peak"]}
            for key, value in {**seconds, **memory, "passes": inside["passes"]}.items():
                found.setdefault(key, []).append(value)
            shutil.rmtree(out)
    return found


def measure_run(
    recipe: Mapping[str, Any], out: Path, *, threads: int = 2, memory: int = 2**30
) -> dict[str, float]:
    """Merge by `alliage.merging.run` in a process of its own; an older output is removed.

    Returns:
        "peak": bytes of anonymous memory beyond what was there before; "seconds" of all, and
        "within" the passes over the blocks; "passes": their number.
    """
    arguments = json.dumps([recipe, str(out), threads, memory])
    return dict(json.loads(run_anew([sys.executable, "-c", _RUN, arguments], out).output))


def _row(size: str, family: Path, runs: Mapping[str, list[float]]) -> dict[str, str]:
    files = weight_files(family)
    read = len(files) * files[0].stat().st_size / 1e9
    at = {key: statistics.median(values) for key, values in runs.items()}
    one, two = THREADS
    return {
        "parameters": size,
        "inputs, GB": f"{read:.2f}",
        "run(), s": f"{at[f'run, {one}']:.2f} / {at[f'run, {two}']:.2f}",
        "gain": f"{at[f'run, {one}'] / at[f'run, {two}']:.2f}",
        "command, s": f"{at[f'command, {one}']:.2f} / {at[f'command, {two}']:.2f}",
        "command's gain": f"{at[f'command, {one}'] / at[f'command, {two}']:.2f}",
        "passes alone, s": f"{at[f'passes, {one}']:.2f} / {at[f'passes, {two}']:.2f}",
        "passes' gain": f"{at[f'passes, {one}'] / at[f'passes, {two}']:.2f}",
        "run(), s for each GB": f"{at[f'run, {two}'] / read:.2f}",
        "floor, s": f"{at['floor']:.2f}",
        "command / floor": f"{at[f'command, {two}'] / at['floor']:.1f}",
        "command's memory, MiB": f"{at['command memory'] / 2**20:.0f}",
        "run()'s memory, MiB": f"{at['run memory'] / 2**20:.0f}",
        "passes": f"{at['passes']:.0f}",
    }


def _note() -> str:
    return (
        "TIES (density 0.2, λ = 1) of a base and four tuned Llama-shaped models in bfloat16, files "
        f"in the page cache; medians of {RUNS} runs in turn. Where there are two figures: with "
        f"{THREADS[0]} and with {THREADS[1]} threads; the rest is with {THREADS[1]}. Gain: the "
        "first divided by the second. Passes alone: from the first block read to the last block "
        "merged, without the start and without waiting for the disk at the end. Memory: peak of "
        "anonymous memory, of the whole process and of `run()` beyond the libraries. Floor: `cat` "
        "of the inputs to /dev/null and one synced write of the output's size."
    )
