"""Run every benchmark: `python -m benchmarks`, or some: `python -m benchmarks merging`."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks

names = sys.argv[1:] or [
    module.name
    for module in pkgutil.iter_modules(benchmarks.__path__)
    if not module.name.startswith("_")
]
for name in names:
    importlib.import_module(f"benchmarks.{name}").main()
