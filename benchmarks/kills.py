"""Merges killed at random moments and gone on with, against one that nothing disturbed.

Each merge is the whole command in a process of its own. SIGKILL comes at a moment drawn uniformly
from the time that an undisturbed run takes, so also while it starts, syncs, hashes and renames.
What goes on is killed again one time in three.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alliage.merging import load_recipe, plan
from alliage.merging.engine.blocks import parts_of
from benchmarks._models import BASE, SIZES, TUNED, make_family
from benchmarks._processes import measure
from benchmarks._report import OUT, report
from benchmarks.merging import ALLIAGE

KILLS, SIZE = 50, "34M"
_UNDISTURBED = 3
_AGAIN = 1 / 3
# What a killed run may have come to, in this order.
STAGES = (
    "before the journal",
    "nothing written down",
    "thresholds known",
    "some parts done",
    "all parts done",
    "renamed",
)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill and what became of the output.

    Attributes:
        moment: when it came, a share of the undisturbed run's time.
        stage: what the killed run had come to, one of `STAGES`.
        parts: that its journal says are done.
        identical: whether the output's files are in the end those of an undisturbed run.
    """

    moment: float
    stage: str
    parts: int
    identical: bool = False


def main() -> None:
    """Kill as often as asked for; fails where an output differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kills")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--family", choices=SIZES, default=SIZE)
    asked, _ = parser.parse_known_args(sys.argv[1:])
    started = time.perf_counter()
    family = make_family(asked.family)
    with tempfile.TemporaryDirectory(dir=OUT) as scratch:
        wall, parts, kills = kill_and_resume(family, Path(scratch), asked.kills)
    note = (
        f"TIES, a base and {len(TUNED)} models of {asked.family} parameters, an output of "
        f"{parts} parts; undisturbed it takes {wall:.1f} s. SIGKILL at moments drawn uniformly "
        "from that time, then `--resume`, killed again one time in three. Identical: every file of "
        "the output in the end, byte for byte. Killed when renamed: it was complete already. "
        f"{time.perf_counter() - started:.0f} s in all."
    )
    details = {
        "wall": wall,
        "kills": [[k.moment, k.stage, k.parts, k.identical] for k in kills],
    }
    report("kills", "Killed and gone on with", table(kills), note=note, details=details)
    different = sum(not kill.identical for kill in kills)
    if different:
        raise SystemExit(f"kills: the output differs after {different} of {len(kills)} kills.")


def kill_and_resume(family: Path, scratch: Path, wanted: int) -> tuple[float, int, list[Kill]]:
    """Merge a family until so many runs were killed.

    Returns:
        seconds of an undisturbed run, parts of its output, and every kill.

    Raises:
        RuntimeError: a run that nobody killed failed, or kept other parts than were done.
    """
    recipe = scratch / "ties.yml"
    models = [str(family / name) for name in TUNED]
    content = {"method": "ties", "base": str(family / BASE), "models": models}
    recipe.write_text(json.dumps(content))  # JSON is YAML
    whole = scratch / "whole" / "merged"
    walls = []
    for number in range(1 + _UNDISTURBED):
        out = whole if not number else scratch / f"whole-{number}" / whole.name
        walls.append(measure(_command(recipe, out)).wall)
    wall = statistics.median(walls[1:])  # the first one also read the models from the disk
    made = plan(load_recipe(recipe))
    total = len(parts_of(made, made.block))
    drawn, kills, number = random.Random(0), list[Kill](), 0
    while len(kills) < wanted:
        number += 1
        out = scratch / f"killed-{number}" / whole.name  # the card has the name
        moments = [drawn.random()]
        while len(kills) + len(moments) < wanted and drawn.random() < _AGAIN:
            moments.append(drawn.random())
        found = [kill for m in moments if (kill := _killed(recipe, out, m, wall, total))]
        if not out.exists():
            kept = json.loads(measure(_command(recipe, out)).output)["run"]["parts_kept"]
            if kept != (found[-1].parts if found else 0):
                raise RuntimeError(f"{kept} parts were kept; left: {found[-1:]}")
        same = _same(whole, out)
        kills += [replace(kill, identical=same) for kill in found]
        print(f"{len(kills)} of {wanted}: {[k.stage for k in found]}, identical: {same}")
    return wall, total, kills


def table(kills: Sequence[Kill]) -> list[dict[str, Any]]:
    """A row for each stage that a kill met, and one for all."""
    groups = {stage: [kill for kill in kills if kill.stage == stage] for stage in STAGES}
    rows = [_row(stage, met) for stage, met in groups.items() if met]
    return [*rows, _row("all", kills)]


def _row(stage: str, kills: Iterable[Kill]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for kill in kills:
        anew = STAGES.index(kill.stage) <= STAGES.index("nothing written down")
        counts["kills"] += 1
        counts["parts kept"] += kill.stage != "renamed" and kill.parts > 0
        counts["started anew"] += anew
        counts["identical"] += kill.identical
    columns = ("kills", "parts kept", "started anew", "identical")
    return {"killed when": stage, **{column: counts[column] for column in columns}}


def _killed(recipe: Path, out: Path, moment: float, wall: float, total: int) -> Kill | None:
    """Start a merge to `out`, or go on with one, and kill it; nothing if it was done before.

    Raises:
        RuntimeError: it failed by itself.
    """
    if out.exists():
        return None
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            _command(recipe, out),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment * wall)
        process.kill()
        code = process.wait()
        errors.seek(0)
        if code > 0:
            raise RuntimeError(f"a run failed by itself: {errors.read().decode()}")
    if code == 0:
        return None
    return Kill(moment, *_stage(out, total))


def _stage(out: Path, total: int) -> tuple[str, int]:
    """What a killed run had come to, and how many parts of all its journal says are done."""
    journal = out.parent / f".{out.name}.partial" / "journal"
    entries = []
    if journal.exists():
        for line in journal.read_bytes().split(b"\n")[1:-1]:  # what is whole
            entries.append(json.loads(line))
    parts = sum("part" in entry for entry in entries)
    if out.exists():
        return "renamed", parts
    if not journal.exists():
        return "before the journal", 0
    if not entries:
        return "nothing written down", 0
    if not parts:
        return "thresholds known", 0
    return ("all parts done" if parts == total else "some parts done"), parts


def _same(whole: Path, out: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = [{str(f.relative_to(home)) for f in home.rglob("*")} for home in (whole, out)]
    files = [name for name in names[0] if (whole / name).is_file()]
    return names[0] == names[1] and all(
        filecmp.cmp(whole / name, out / name, shallow=False) for name in files
    )


def _command(recipe: Path, out: Path) -> list[str]:
    return [str(word) for word in (ALLIAGE, "merge", recipe, "-o", out, "--resume", "--json")]
