"""Merging side by side with mergekit: the same files, whole processes, in turn.

Needs mergekit in an environment of its own, which `make peers` makes. The floor is what no merge
can go below: `cat` of the inputs to /dev/null and one synced write of the output's size.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks._models import BASE, TUNED, make_family, weight_files
from benchmarks._processes import Measured, floor, measure, median
from benchmarks._report import OUT, report

ALLIAGE = Path(sys.executable).with_name("alliage")
PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin"
SIZE, SMALLEST = "336M", "0.1M"  # the smallest shows how long it takes to start
RUNS, PEER_RUNS = 3, 2
THREADS = 2
CACHE = OUT / "cache"  # digests of inputs, so that runs with and without them can be told apart
_SCALE = 0.4
_ROUNDING = 2.0**-8  # the largest relative error of one rounding to bfloat16


@dataclass(frozen=True, slots=True)
class Merge:
    """One merge as each side spells it.

    Attributes:
        ours: what alliage's recipe says beside the models.
        peer: what mergekit's says.
        has_base: the base is read.
        delta_roundings: of each task vector, scaled, in the peer's bfloat16 arithmetic; None where
            the two merge differently.
    """

    ours: Mapping[str, Any]
    peer: Mapping[str, Any]
    has_base: bool
    delta_roundings: int | None


MERGES = {
    "ties": Merge(  # thresholds of the whole vector; mergekit takes one for each tensor
        {"method": "ties", "parameters": {"density": 0.2, "scale": 1.0}},
        {"merge_method": "ties", "parameters": {"weight": 1.0, "density": 0.2, "lambda": 1.0}},
        has_base=True,
        delta_roundings=None,
    ),
    "linear": Merge(
        {"method": "average"},
        {"merge_method": "linear", "parameters": {"weight": 1.0}},
        has_base=False,
        delta_roundings=0,
    ),
    "task_arithmetic": Merge(  # mergekit rounds the differences, their sum and its scaled form
        {"method": "task_arithmetic", "parameters": {"scale": _SCALE}},
        {"merge_method": "task_arithmetic", "parameters": {"weight": 1.0, "lambda": _SCALE}},
        has_base=True,
        delta_roundings=3,
    ),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """How two merges of the same models differ.

    Attributes:
        share: of parameters that differ.
        worst: the largest difference, relative to what the roundings can make; 1 is the most.
    """

    share: float
    worst: float


@dataclass(frozen=True, slots=True)
class Runs:
    """What both sides took.

    Attributes:
        ours, peer: run by run.
        anew: ours, with inputs that were never hashed before.
        floors: seconds to read the inputs, seconds to write the output; run by run.
        read, written: bytes of weights.
        difference: of the outputs; None where they are not meant to agree.
    """

    ours: list[Measured]
    anew: list[Measured]
    peer: list[Measured]
    floors: list[tuple[float, float]]
    read: int
    written: int
    difference: Difference | None


def main() -> None:
    """Merge in turn, compare what came out, and write the table."""
    if not (PEERS / "mergekit-yaml").exists():
        print("merging: skipped, mergekit is not installed; run `make peers`.")
        return
    family, smallest = make_family(SIZE), make_family(SMALLEST)
    start_up = run_both(MERGES["ties"], smallest, runs=PEER_RUNS, peer_runs=PEER_RUNS)
    rows, details = [], {}
    for name, merge in MERGES.items():
        runs = run_both(merge, family, runs=RUNS, peer_runs=PEER_RUNS)
        rows.append(_row(name, runs, start_up))
        details[name] = {
            "bytes read": runs.read,
            "bytes written": runs.written,
            "alliage": [_numbers(run) for run in runs.ours],
            "alliage, inputs hashed anew": [_numbers(run) for run in runs.anew],
            "mergekit": [_numbers(run) for run in runs.peer],
            "floor": runs.floors,
            "difference": runs.difference and (runs.difference.share, runs.difference.worst),
        }
    title = f"Merging four models of {SIZE} parameters, beside mergekit"
    report("merging", title, rows, note=_note(family), details={"runs": details})


def run_both(merge: Merge, family: Path, *, runs: int, peer_runs: int) -> Runs:
    """Run the floor and both sides in turn, as often as each is to run; compare the outputs.

    Raises:
        RuntimeError: a side failed, or the outputs differ by more than roundings.
    """
    inputs = weight_files(family, base=merge.has_base)
    nbytes = inputs[0].stat().st_size
    floors, anew, mine, theirs = [], [], [], []
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        home = Path(folder)
        ours, peer = home / "ours", home / "peer"
        for number in range(max(runs, peer_runs)):
            floors.append(floor(inputs, nbytes, home / "floor"))
            if number < runs:
                shutil.rmtree(CACHE / "sha256", ignore_errors=True)
                anew.append(run_anew(ours_command(merge, family, ours), ours))
                mine.append(run_anew(ours_command(merge, family, ours), ours))
            if number < peer_runs:
                theirs.append(run_anew(peer_command(merge, family, peer), peer))
        difference = compare(merge, family, ours, peer)
    return Runs(mine, anew, theirs, floors, len(inputs) * nbytes, nbytes, difference)


def ours_command(merge: Merge, family: Path, out: Path, threads: int = THREADS) -> list[str | Path]:
    """The command line that merges a family; its recipe is written beside `out`."""
    recipe = {**merge.ours, "models": [str(family / name) for name in TUNED]}
    if merge.has_base:
        recipe["base"] = str(family / BASE)
    path = out.with_suffix(".yml")
    path.write_text(yaml.safe_dump(recipe))
    return [ALLIAGE, "merge", path, "-o", out, "--threads", str(threads)]


def peer_command(merge: Merge, family: Path, out: Path) -> list[str | Path]:
    """The same merge by mergekit, with its default options."""
    models = [{"model": str(family / name)} for name in TUNED]
    recipe = {**merge.peer, "models": models, "dtype": "bfloat16"}
    if merge.has_base:
        recipe["base_model"] = str(family / BASE)
    path = out.with_suffix(".yml")
    path.write_text(yaml.safe_dump(recipe))
    return [PEERS / "mergekit-yaml", path, out]


def compare(merge: Merge, family: Path, ours: Path, peer: Path) -> Difference | None:
    """How far two outputs differ; None where only names and shapes must agree.

    Raises:
        RuntimeError: other names or shapes, or values further apart than roundings make them.
    """
    first, second = _open(ours), _open(peer)
    shapes = [{name: files[name].get_slice(name).get_shape() for name in files}
              for files in (first, second)]  # fmt: skip
    if shapes[0] != shapes[1]:
        raise RuntimeError(f"{ours} and {peer} hold other tensors:\n{shapes[0]}\n{shapes[1]}")
    if merge.delta_roundings is None:
        return None
    originals = [_open(family / name) for name in (BASE, *TUNED)]
    differing, total, worst = 0, 0, 0.0
    for name in first:
        mine, theirs = first[name].get_tensor(name).float(), second[name].get_tensor(name).float()
        distance = (mine - theirs).abs_()
        # Both round their result once.
        allowed = mine.abs().maximum(theirs.abs()) * (2 * _ROUNDING)
        base, *tuned = (files[name].get_tensor(name).float() for files in originals)
        for model in tuned:
            model.sub_(base).abs_()
            allowed.add_(model, alpha=_SCALE * merge.delta_roundings * _ROUNDING)
        differs = distance != 0  # NaN too
        differing += int(differs.sum())
        total += distance.numel()
        if differs.any():
            ratios = distance[differs] / allowed[differs]
            worst = float(ratios.clamp(min=worst).max())  # NaN stays
    if not worst <= 1:
        raise RuntimeError(
            f"{ours} and {peer} differ by {worst:.3g} times what rounding to bfloat16 explains."
        )
    return Difference(differing / total, worst)


def run_anew(command: list[str | Path], out: Path) -> Measured:
    """Run a command that makes `out`, on a disk at rest."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # nobody pays for what others wrote
    os.environ["ALLIAGE_CACHE"] = str(CACHE)
    return measure(command)


def _open(folder: Path) -> dict[str, Any]:
    """Tensor name -> the open file that holds it."""
    from safetensors import safe_open

    files = [safe_open(path, "pt") for path in sorted(folder.glob("*.safetensors"))]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118


def _row(name: str, runs: Runs, start_up: Runs) -> dict[str, str]:
    ours, peer = median(runs.ours, "wall"), median(runs.peer, "wall")
    anew = median(runs.anew, "wall")
    read, write = (statistics.median(part) for part in zip(*runs.floors, strict=True))
    shares = [median(start_up.ours, "wall") / ours, median(start_up.peer, "wall") / peer]
    agree = runs.difference
    return {
        "merge": name,
        "reads + writes, GB": f"{runs.read / 1e9:.2f} + {runs.written / 1e9:.2f}",
        "mergekit, s": f"{peer:.1f}",
        "alliage, s": f"{ours:.2f}",
        "mergekit / alliage": f"{peer / ours:.1f}",
        "hashed anew, s": f"{anew:.2f}",
        "mergekit / hashed anew": f"{peer / anew:.1f}",
        "floor, s": f"{read:.2f} + {write:.2f}",
        "alliage / floor": f"{ours / (read + write):.1f}",
        "processor time, s": _both(runs, "cpu", 1, ".1f"),
        "peak memory, MiB": _both(runs, "anonymous", 2**20, ".0f"),
        "start-up share": " / ".join(f"{share:.0%}" for share in reversed(shares)),
        "outputs differ in": f"{agree.share:.1%}" if agree else "",
    }


def _both(runs: Runs, attribute: str, unit: int, form: str) -> str:
    values = (median(side, attribute) / unit for side in (runs.peer, runs.ours))
    return " / ".join(format(value, form) for value in values)


def _numbers(run: Measured) -> dict[str, float]:
    return {"wall": run.wall, "cpu": run.cpu, "anonymous": run.anonymous}


def _note(family: Path) -> str:
    asked = "import importlib.metadata as m; print(m.version('mergekit'), m.version('torch'))"
    done = subprocess.run(
        [PEERS / "python", "-c", asked], stdout=subprocess.PIPE, text=True, check=True
    )
    peer, torch = done.stdout.split()
    nbytes = weight_files(family)[0].stat().st_size
    return (
        f"mergekit {peer} (torch {torch}) with its default options, `alliage merge --threads "
        f"{THREADS}`. Llama-shaped models in bfloat16, {nbytes / 1e9:.2f} GB each, in the page "
        f"cache: base and four tuned; linear reads no base. TIES with density 0.2 and λ = 1, task "
        f"arithmetic with λ = {_SCALE}. Whole commands, medians of {PEER_RUNS} and {RUNS} runs in "
        "turn; alliage syncs what it writes and records the sha256 of its inputs, mergekit does "
        "neither. Digests of unchanged inputs are remembered; hashed anew: the first merge of "
        "these inputs. Floor: `cat` of the inputs to /dev/null + one synced write of the output's "
        "size. "
        "Where there are two figures, mergekit's stands first. Memory: peak of the process's "
        "anonymous memory. Start-up: what the same command takes on models of "
        f"{SMALLEST} parameters. Outputs differ: the share of parameters, by no more than "
        "rounding to bfloat16 explains; TIES trims the whole vector here and each tensor in "
        "mergekit, so its values are others."
    )
