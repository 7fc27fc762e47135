"""Throw hostile files at Alliage: `python -m tests.fuzz [--seconds N] [--seed S] [--target T]`.

Every case is made by (seed, target, number): a counter-example is run again with
`--seed S --target T --number N`, and `--keep DIR` leaves its files there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.fuzz.sandbox import run_cases
from tests.fuzz.targets import TARGETS

SHOWN = 20


def main() -> int:
    """Run until the time is over; 1 if any case broke the property."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--number", type=int, help="one case only, in this process")
    parser.add_argument("--keep", type=Path, help="a new folder for the files of that case")
    parser.add_argument("--json", action="store_true", help="counts as one JSON document")
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    if options.number is not None:
        return _one(targets[0], options)

    counts: dict[str, Counter[str]] = {name: Counter() for name in targets}
    violations: dict[str, list[str]] = {}
    ends = time.monotonic() + options.seconds
    cases = ((name, number) for number in itertools.count() for name in targets)
    for found in run_cases(
        itertools.takewhile(lambda _: time.monotonic() < ends, cases), options.seed
    ):
        counts[found.target][found.outcome or "VIOLATION"] += 1
        if found.violation:
            key = f"{found.target}: {found.violation}"
            violations.setdefault(key, []).append(str(found.number))
    if options.json:
        document = {"seed": options.seed, "counts": counts, "violations": violations}
        print(json.dumps(document, indent=2, ensure_ascii=True))
    else:
        _print(counts, violations)
    return 1 if violations else 0


def _one(target: str, options: argparse.Namespace) -> int:
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        folder = options.keep or Path(home) / "case"
        folder.mkdir()
        TARGETS[target].make(Random(f"{options.seed}/{target}/{options.number}"), folder)
        print(TARGETS[target].judge(folder))
    return 0


def _print(counts: dict[str, Counter[str]], violations: dict[str, list[str]]) -> None:
    for name, classes in counts.items():
        print(f"{name}: {sum(classes.values())} cases, {len(classes)} classes")
        for outcome, count in classes.most_common(SHOWN):
            print(f"  {count:>7}  {outcome.encode('ascii', 'backslashreplace').decode()}")
        if len(classes) > SHOWN:
            print(f"           ... {len(classes) - SHOWN} rarer classes: see --json")
    print(f"{sum(c.total() for c in counts.values())} cases, {len(violations)} violations")
    for violation, numbers in sorted(violations.items()):
        shown = violation.encode("ascii", "backslashreplace").decode()
        print(f"  {len(numbers)} x {shown} (case {', '.join(numbers[:3])})")


if __name__ == "__main__":
    sys.exit(main())
