"""Cases in a process of their own, with a limit of time and memory for each."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

SECONDS = 10.0
MEMORY = 2**30  # beyond what the libraries take
START_SECONDS = 120.0


class Outcome(NamedTuple):
    """What became of one case: its class, or what no input may cause."""

    target: str
    number: int
    outcome: str
    violation: str = ""


def run_cases(
    cases: Iterable[tuple[str, int]], seed: int, *, seconds: float = SECONDS
) -> Iterator[Outcome]:
    """Run (target, number) cases one after another; a process that hangs or dies is replaced."""
    worker = _Worker(seed)
    try:
        for target, number in cases:
            found = worker.run(target, number, seconds)
            if found is None:
                worker.stop()
                worker = _Worker(seed)
                found = Outcome(target, number, "", worker.fate)
            yield found
    finally:
        worker.stop()


class _Worker:
    fate = f"hung for more than {SECONDS:g} s, or the process died"

    def __init__(self, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._home = tempfile.mkdtemp(prefix="alliage-fuzz-")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, seed, self._home), daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(START_SECONDS) or self._connection.recv() != "ready":
            raise RuntimeError("the process that runs the cases did not start")

    def run(self, target: str, number: int, seconds: float) -> Outcome | None:
        try:
            self._connection.send((target, number))
            return self._connection.recv() if self._connection.poll(seconds) else None
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()
        shutil.rmtree(self._home, ignore_errors=True)


def _serve(connection: Connection, seed: int, home: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"
    from tests.fuzz.targets import TARGETS
    from tests.fuzz.verdict import snapshot

    root = Path(home).resolve()
    (root / "cwd").mkdir()
    os.chdir(root / "cwd")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send("ready")
    while True:
        try:
            name, number = connection.recv()
        except EOFError:
            return
        folder = root / "case"
        folder.mkdir()
        outcome, violation = "", ""
        try:
            outcome = TARGETS[name].case(seed, number, folder)
            if {entry[0] for entry in snapshot(root)} - {
                entry[0] for entry in _prefixed(folder, root)
            } != {"cwd", "case"}:
                violation = "files were written outside the case's folder"
        except BaseException as error:  # the very thing looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            violation = f"{type(error).__name__} at {where}: {str(error)[:300]}"
        shutil.rmtree(folder)
        connection.send(Outcome(name, number, outcome, violation))


def _prefixed(folder: Path, root: Path) -> Iterator[tuple[str]]:
    for path in folder.rglob("*"):
        yield (str(path.relative_to(root)).encode(errors="backslashreplace").decode(),)
