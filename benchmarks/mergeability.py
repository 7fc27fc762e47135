"""Will two tuned models merge? Every pair merged in memory, and what foretells its losses."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping
from itertools import dropwhile
from pathlib import Path

import pandas as pd

from benchmarks._merge_families import FAMILIES, SEEDS
from benchmarks._mergeability_learning import (
    learn,
    sizes,
)
from benchmarks._mergeability_losses import losses
from benchmarks._mergeability_merges import measure
from benchmarks._mergeability_predictors import own
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
    parser.add_argument("--learn", action="store_true", help="Renew what forecasts go by.")
    parser.add_argument("--no-measuring", action="store_true", help="Only what is there.")
    parser.add_argument("--answers", type=Path, help="Where to keep what models answer.")
    options = parser.parse_args(list(dropwhile(lambda word: word[0] != "-", sys.argv[1:])))
    asked = options.family or ["images", "texts-lora", "texts-full"]
    if reason := missing({task for name in asked for task in FAMILIES[name].tasks}):
        print(f"mergeability: skipped, {reason}.")
        return
    kept = options.answers or options.home / "mergeability"
    seeds = options.seed or list(SEEDS)
    if not options.no_measuring:
        for first, seed, name in itertools.product((True, False), seeds, asked):
            started = time.perf_counter()
            out = kept / f"{name}-{seed}"
            measure(name, FAMILIES[name], options.home / name, out, seed, SCORED, first=first)
            print(f"{name}-{seed}: {(time.perf_counter() - started) / 60:.1f} min", flush=True)
    table = pd.concat(
        [
            losses(kept / f"{name}-{seed}", name, seed)
            for name, seed in itertools.product(asked, seeds)
            if (kept / f"{name}-{seed}").is_dir()
        ],
        ignore_index=True,
    )
    table.to_parquet(kept / "losses.parquet")
    weights = _with_weights(table, options.home, kept)
    if options.learn:
        sizes(options.home)
        learn(table, weights).write()
    _report(table, weights, options.home, kept)


def _with_weights(
    table: pd.DataFrame, home: Path, kept: Path
) -> dict[tuple[str, str], pd.DataFrame]:
    """Losses with the predictors from weights beside them, by family and method."""
    found = {}
    for (name, method), rows in table.groupby(["family", "method"]):
        parts = []
        for seed, some in rows.groupby("seed"):
            planned = "factor_average" if method == "factor_average" else "average"
            file = kept / f"weights-{name}-{seed}-{planned}.parquet"
            sets = [tuple(models.split("+")) for models in some["models"].unique()]
            stored = pd.read_parquet(file) if file.exists() else None
            if stored is None or not set(some["models"]) <= set(stored["models"]):
                stored = own(FAMILIES[name], home / name, seed, planned, sets)
                stored.to_parquet(file)
            parts.append(some.merge(stored, on=["models", "task"]))
        found[name, method] = pd.concat(parts, ignore_index=True)
    return found


def _report(
    table: pd.DataFrame, weights: Mapping[tuple[str, str], pd.DataFrame], home: Path, kept: Path
) -> None:
    pass
