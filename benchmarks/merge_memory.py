"""Peak anonymous memory of a TIES merge as models grow: base and three tuned models, bfloat16."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._report import report

LAYERS = (2, 20)
_WIDTH = 2048

_MERGE = """
import json, sys, threading, time
import torch
from alliage.merging import parse_recipe, plan, run

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

home, memory = sys.argv[1:]
models = [f"{home}/{name}" for name in "abc"]
recipe = parse_recipe({"method": "ties", "base": f"{home}/base", "models": models})
torch.rand(1000).sort()
before, peak, running = anonymous(), 0, True
def watch():
    global peak
    while running:
        peak = max(peak, anonymous())
        time.sleep(0.005)
thread = threading.Thread(target=watch, daemon=True)
thread.start()
record = run(plan(recipe, threads=2, memory=int(memory)), f"{home}/out")
running = False
thread.join()
print(json.dumps({"peak": peak - before, "seconds": record.seconds, "passes": record.passes}))
"""


def main() -> None:
    """Measure each size in a process of its own."""
    rows = []
    for layers in LAYERS:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            for seed, name in enumerate(("base", "a", "b", "c")):
                _write_model(home / name, layers, seed)
            started = time.perf_counter()
            measured = measure(home)
            wall = time.perf_counter() - started
        rows.append(
            {
                "parameters of each model": f"{layers * _WIDTH**2 / 1e6:.1f} M",
                "read": f"{4 * layers * _WIDTH**2 * 2 / 1e6:.0f} MB",
                "peak anonymous memory beyond the libraries": f"{measured['peak'] / 2**20:.0f} MiB",
                "seconds": f"{measured['seconds']:.1f}",
                "seconds with start-up": f"{wall:.1f}",
                "passes": measured["passes"],
            }
        )
    report("merge_memory", "TIES: memory while models grow tenfold", rows)


def measure(home: Path, memory: int = 2**30) -> dict[str, float]:
    """Merge home/a, b and c by TIES onto home/base, in a process of its own.

    Returns:
        "peak": bytes of anonymous memory beyond what was there before; "seconds"; "passes".
    """
    done = subprocess.run(
        [sys.executable, "-c", _MERGE, str(home), str(memory)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def _write_model(folder: Path, layers: int, seed: int) -> None:
    """A checkpoint of random square matrices; the tuned ones differ a little from the base."""
    import torch

    from alliage.checkpoints.writer import TensorWriter, plan_layout

    folder.mkdir()
    names = [f"model.layers.{number}.mlp.up_proj.weight" for number in range(layers)]
    layout = plan_layout((name, "BF16", (_WIDTH, _WIDTH)) for name in names)
    with TensorWriter(folder, layout) as writer:
        for number, name in enumerate(names):
            common = torch.Generator().manual_seed(number)
            own = torch.Generator().manual_seed(10_000 * seed + number)
            matrix = torch.randn(_WIDTH, _WIDTH, generator=common) * 0.02
            if seed:
                matrix += torch.randn(_WIDTH, _WIDTH, generator=own) * 0.001
            raw = matrix.bfloat16().view(torch.uint8).numpy()
            writer.write(name, 0, raw.data.cast("B"))
