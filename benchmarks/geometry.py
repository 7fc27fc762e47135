"""Surveys side by side with loops of scipy.linalg.subspace_angles, and of dense models.

Adapters and their base are files; a base's weights are a hole in the file, for a survey of factors
never reads them. Each side runs in a process of its own, in turn, and times its work without the
imports. The loop has its factors in memory before the clock starts; ours reads them from files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._models import SIZES, TUNED, make_family
from benchmarks._processes import measure
from benchmarks._report import OUT, report

RUNS = 3
ADAPTERS = 10
# modules, d, r, and how many modules the slow sides run; the rest is taken to last as long.
SHAPES = {
    "64 modules 4096×4096, r=16": (64, 4096, 16, 64, 0),
    "24 modules 768×768, r=8": (24, 768, 8, 24, 1),
}
METRICS = ("geodesic", "cosine", "l2")
DENSE_SIZE = "336M"
_HOLE = b" "
_KEPT = OUT / "geometry-dense.json"  # minutes long: a run of the rest alone keeps it


def main() -> None:
    """Write the section geometry."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks geometry")
    parser.add_argument("--home", type=Path, default=OUT / "geometry", help="where files are made")
    parser.add_argument("--models", type=Path, help="where families of dense models are kept")
    parser.add_argument("--no-dense", action="store_true", help="keep its last row")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args([word for word in sys.argv[1:] if word != "geometry"])
    if arguments.side is not None:
        _side(*arguments.side)
        return
    rows = []
    for name, shape in SHAPES.items():
        rows += _shape_rows(arguments.home, name, *shape)
    if not arguments.no_dense:
        _KEPT.parent.mkdir(exist_ok=True)
        _KEPT.write_text(json.dumps(_dense_row(arguments.home, arguments.models)))
    if _KEPT.exists():
        rows.append(json.loads(_KEPT.read_text()))
    report(
        "geometry",
        "Surveys of all pairs",
        rows,
        note=_NOTE,
        details={"adapters": ADAPTERS, "runs": RUNS, "metrics": METRICS},
    )


_NOTE = f"""\
All pairs of {ADAPTERS} LoRA adapters: geodesic, cosine and L2 of all modules by `alliage.compare`,
from files to the array with what chance gives, and the same computation on factors in memory, which
is "ours"; beside a loop of `scipy.linalg.subspace_angles` over all pairs of B in memory, which is
geodesic alone. Medians of {RUNS} runs in turn. The loop is at its best with one thread: with more,
its small products wait for each other (an eighth of the modules, taken eight times). Processor
seconds say more than seconds where a machine is shared. The dense route is the same loop over the
products B·A, of one module, taken times the number of modules. No survey of adapters can do with
less than two Gram matrices of all factors in float64, 13 GFLOP for the large shape.
The dense survey is of four Llama-shaped models of 336 M parameters in
bfloat16, by the 16 exact leading directions of each matrix; its memory is the peak that no file
backs."""


def _shape_rows(
    home: Path, name: str, modules: int, d: int, r: int, looped: int, dense: int
) -> list[dict[str, Any]]:
    folder = _adapters(home / f"{modules}-{d}-{r}", modules, d, r)
    sides = {"ours": modules, "memory": modules, "loop": looped, "as it comes": looped // 8} | (
        {"dense": dense} if dense else {}
    )
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(RUNS):
        for side, count in sides.items():
            if side == "dense" and number:
                continue
            words = [sys.executable, "-m", "benchmarks", "geometry", "--side", side, folder]
            told = json.loads(measure([*words, str(count), str(r)]).output.splitlines()[-1])
            runs[side].append({key: value * modules / count for key, value in told.items()})
            print(name, side, told, flush=True)
    medians = {
        side: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for side, found in runs.items()
    }
    ours = medians["memory"]
    labels = {
        "ours": "alliage.compare, from files",
        "memory": "the same, factors in memory",
        "loop": "loop of subspace_angles over B, one thread",
        "as it comes": "the same loop, threads as scipy takes them",
        "dense": "loop of subspace_angles over B·A",
    }
    return [
        {
            "work": name,
            "by": labels[side],
            "seconds": f"{found['seconds']:.3g}",
            "processor seconds": f"{found['processor']:.3g}",
            "times ours": f"{found['seconds'] / ours['seconds']:.2g}",
            "times ours, processor": f"{found['processor'] / ours['processor']:.2g}",
            "memory": "",
        }
        for side, found in medians.items()
    ]


def _dense_row(home: Path, models: Path | None) -> dict[str, Any]:
    kept = models or home / "models"
    family = make_family(DENSE_SIZE, kept)
    words = [sys.executable, "-m", "benchmarks", "geometry", "--side", "survey", family, "0", "0"]
    done = measure(words)
    told = json.loads(done.output.splitlines()[-1])
    print(told, done.anonymous, flush=True)
    if models is None:
        shutil.rmtree(kept)
    return {
        "work": f"4 dense models of {DENSE_SIZE}",
        "by": "alliage.compare",
        "seconds": f"{told['seconds']:.3g}",
        "processor seconds": f"{told['processor']:.3g}",
        "times ours": "",
        "times ours, processor": "",
        "memory": f"{done.anonymous / 2**20:.0f} MiB",
    }


def _side(side: str, folder: str, count: str, rank: str) -> None:
    """One side's work, timed; prints its seconds as JSON."""
    if side in ("loop", "as it comes", "dense"):
        if side == "as it comes":
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = "1"  # before numpy reads it
        work = _loop(Path(folder), int(count), int(rank), dense=side == "dense")
    elif side == "memory":
        work = _in_memory(Path(folder))
    else:
        work = _survey(Path(folder))
    print(json.dumps(work))


def _survey(folder: Path) -> dict[str, float]:
    import alliage
    import alliage.geometry.surveying.comparing  # loaded before the clock starts

    names = [folder / name for name in TUNED] if (folder / TUNED[0]).exists() else (
        [folder / f"adapter-{i}" for i in range(ADAPTERS)]
    )  # fmt: skip
    started, cpu = time.perf_counter(), time.process_time()
    found = alliage.compare(folder / "base", names, METRICS)
    seconds = {"seconds": time.perf_counter() - started, "processor": time.process_time() - cpu}
    assert found["geodesic"].notnull().any()
    return seconds


def _in_memory(folder: Path) -> dict[str, float]:
    """What a survey computes of each module, in its workers, without files and chance."""
    from concurrent.futures import ThreadPoolExecutor

    import alliage
    from alliage.geometry.surveying.pairs import LowRankUpdate, low_rank_pairs
    from alliage.threads import one_torch_thread
    from alliage.vectors import open as open_vector

    base = alliage.open(folder / "base")
    vectors = [open_vector(folder / f"adapter-{i}", base) for i in range(ADAPTERS)]
    modules = [
        [LowRankUpdate(*vector.factors(name)) for vector in vectors] for name in vectors[0].modules
    ]
    started, cpu = time.perf_counter(), time.process_time()
    with one_torch_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for sums, angles in pool.map(low_rank_pairs, modules):
            assert angles is not None
            angles.values.square().sum(-1).sqrt()
            sums.l2()
            sums.cosine_distance()
    return {"seconds": time.perf_counter() - started, "processor": time.process_time() - cpu}


def _loop(folder: Path, count: int, rank: int, *, dense: bool) -> dict[str, float]:
    import numpy as np
    from safetensors.numpy import load_file
    from scipy.linalg import subspace_angles

    files = [load_file(folder / f"adapter-{i}" / "adapter_model.safetensors")
             for i in range(ADAPTERS)]  # fmt: skip
    names = sorted({name.rpartition(".lora_")[0] for name in files[0]})[:count]
    factors = [
        [(file[f"{name}.lora_B.weight"].astype(np.float64), file[f"{name}.lora_A.weight"])
         for file in files]
        for name in names
    ]  # fmt: skip
    started, cpu = time.perf_counter(), time.process_time()
    total = 0.0
    for module in factors:
        for i in range(ADAPTERS):
            for j in range(i):
                pair = [B @ A if dense else B for B, A in (module[i], module[j])]
                total += float(np.linalg.norm(subspace_angles(*pair)))
    seconds = {"seconds": time.perf_counter() - started, "processor": time.process_time() - cpu}
    assert 0 < total < len(factors) * ADAPTERS**2 / 2 * np.sqrt(rank) * np.pi
    return seconds


def _adapters(folder: Path, modules: int, d: int, r: int) -> Path:
    """A base whose weights are a hole, and adapters of all its modules, in float32."""
    if folder.exists():
        return folder
    import torch
    from safetensors.torch import save_file

    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    names = [
        f"model.layers.{layer}.self_attn.{kind}_proj"
        for layer in range(modules // 2)
        for kind in "qv"
    ]
    (staging / "base").mkdir(parents=True)
    _write_hole(staging / "base", names, d)
    for number in range(ADAPTERS):
        generator = torch.Generator().manual_seed(number)
        home = staging / f"adapter-{number}"
        home.mkdir()
        tensors = {}
        for name in names:
            stem = f"base_model.model.{name}.lora"
            tensors[f"{stem}_A.weight"] = torch.randn(r, d, generator=generator) * 0.02
            tensors[f"{stem}_B.weight"] = torch.randn(d, r, generator=generator) * 0.02
        save_file(tensors, home / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {
            "peft_type": "LORA", "r": r, "lora_alpha": 2 * r,
            "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "base",
        }  # fmt: skip
        (home / "adapter_config.json").write_text(json.dumps(config))
    staging.rename(folder)
    return folder


def _write_hole(folder: Path, names: list[str], d: int) -> None:
    size = 2 * d * d
    header = {
        f"{name}.weight": {
            "dtype": "BF16", "shape": [d, d], "data_offsets": [i * size, (i + 1) * size],
        }
        for i, name in enumerate(names)
    }  # fmt: skip
    text = json.dumps(header).encode()
    text += _HOLE * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + len(names) * size)
    (folder / "config.json").write_text(json.dumps(SIZES["0.1M"] | {"model_type": "llama"}))
