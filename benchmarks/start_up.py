"""How long commands take that do no work: what a user waits for before anything begins."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks._processes import Measured, measure, median
from benchmarks._report import report
from benchmarks.merging import ALLIAGE, PEERS

RUNS = 10


def main() -> None:
    """Run each command in turn; mergekit's too if `make peers` has installed it."""
    python = Path(sys.executable)
    commands: dict[str, list[str | Path]] = {
        "python -c pass": [python, "-c", "pass"],
        "python -c 'import alliage'": [python, "-c", "import alliage"],
        "alliage --help": [ALLIAGE, "--help"],
        "alliage merge --help": [ALLIAGE, "merge", "--help"],
        "python -c 'import torch'": [python, "-c", "import torch"],
        "mergekit-yaml --help": [PEERS / "mergekit-yaml", "--help"],
    }
    found = {name: command for name, command in commands.items() if Path(command[0]).exists()}
    runs: dict[str, list[Measured]] = {name: [] for name in found}
    for number in range(RUNS + 1):
        for name, command in found.items():
            done = measure(command)
            if number:  # the first one reads the files from the disk
                runs[name].append(done)
    rows = [
        {
            "command": f"`{name}`",
            "seconds": f"{median(done, 'wall'):.3f}",
            "memory, MiB": f"{median(done, 'anonymous') / 2**20:.0f}",
        }
        for name, done in runs.items()
    ]
    note = f"Medians of {RUNS} runs in turn. Memory: peak of anonymous memory."
    walls = {name: [run.wall for run in done] for name, done in runs.items()}
    report("start_up", "Starting", rows, note=note, details={"wall": walls})
