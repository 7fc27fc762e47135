"""Whole processes as a shell sees them: wall time, processor time, peak anonymous memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_EVERY = 0.005  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a command.

    Attributes:
        wall: seconds from its start to its end.
        cpu: seconds of processor time, of all its threads.
        anonymous: peak bytes of memory that no file backs, of the process without its children.
        output: what it printed on standard output.
    """

    wall: float
    cpu: float
    anonymous: int
    output: str


def measure(command: Sequence[str | Path]) -> Measured:
    """Run a command offline, with as many threads as it takes by itself.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=errors, env=environment
        )
        with _PeakMemory(process.pid) as memory:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        printed = [_read(output), _read(errors)]
    if process.returncode:
        line = " ".join(str(word) for word in command)
        raise RuntimeError(f"{line}\n{''.join(printed)}exit code {process.returncode}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, memory.peak, printed[0])


def floor(inputs: Sequence[Path], nbytes: int, scratch: Path) -> tuple[float, float]:
    """What no merge can go below: seconds to read the inputs, and to write and sync the output."""
    os.sync()  # nobody pays for what others wrote
    read = measure(["sh", "-c", 'cat "$@" > /dev/null', "sh", *inputs])
    zeros = ["if=/dev/zero", f"of={scratch}", "bs=4M", f"count={nbytes}", "iflag=count_bytes"]
    write = measure(["dd", *zeros, "conv=fsync", "status=none"])
    scratch.unlink()
    return read.wall, write.wall


def median(runs: Iterable[Measured], attribute: str) -> float:
    """The median of an attribute over runs."""
    return float(statistics.median(getattr(run, attribute) for run in runs))


class _PeakMemory:
    """Watches a process's anonymous memory as long as the `with` block lasts."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            try:
                lines = self._status.read_text().splitlines()
            except OSError:  # it has just ended
                return
            for line in lines:
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
