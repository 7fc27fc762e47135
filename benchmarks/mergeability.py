"""Will two tuned models merge? Every pair merged in memory, and what foretells its losses."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from itertools import dropwhile
from pathlib import Path

from benchmarks._merge_families import FAMILIES, SEEDS
from benchmarks._mergeability_merges import measure
from benchmarks._real_data import missing

SCORED = 800  # examples of each task


def main() -> None:
    """Measure what is not yet measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks mergeability")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append")
    parser.add_argument(
        "--home", type=Path, required=True, help="Where merge_quality's models lie."
    )
    parser.add_argument("--answers", type=Path, help="Where to keep what models answer.")
    options = parser.parse_args(list(dropwhile(lambda word: word[0] != "-", sys.argv[1:])))
    asked = options.family or ["images", "texts-lora", "texts-full"]
    if reason := missing({task for name in asked for task in FAMILIES[name].tasks}):
        print(f"mergeability: skipped, {reason}.")
        return
    kept = options.answers or options.home / "mergeability"
    for first, seed, name in itertools.product((True, False), options.seed or SEEDS, asked):
        started = time.perf_counter()
        out = kept / f"{name}-{seed}"
        measure(name, FAMILIES[name], options.home / name, out, seed, SCORED, first=first)
        print(f"{name}-{seed}: {(time.perf_counter() - started) / 60:.1f} min", flush=True)
