"""Run every benchmark: `python -m benchmarks`, or some: `python -m benchmarks merging`.

Options after the names are for the benchmarks themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from itertools import takewhile

import benchmarks

names = list(takewhile(lambda word: not word.startswith("-"), sys.argv[1:])) or [
    module.name
    for module in pkgutil.iter_modules(benchmarks.__path__)
    if not module.name.startswith("_")
]
for name in names:
    importlib.import_module(f"benchmarks.{name}").main()
