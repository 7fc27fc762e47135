"""Compiled kernels against the methods' definitions in torch, bit for bit."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import alliage
from alliage.errors import AlliageError
from alliage.merging import describe, kernels, plan, run
from alliage.merging.kernels.magnitudes import measure, sample
from alliage.merging.methods.ties import MajoritySign
from alliage.merging.thresholds import TrimThresholds
from tests.merging.test_odd_inputs import recipe, store

SIZES = (0, 1, 7, 1023, 1024, 1025, 3000)
# sums of the last differ by their order
WEIGHTS = ([1.0], [0.5, -0.3], [1.0, 0.0, 2.0], [0.1, 0.2, 0.3, 0.7], [-1.0, 1.0, 1.0, -0.5, 3.0],
           [1e4, -1e4, 0.1, 0.2, 0.3, 0.1, 1e-7, 0.7, 5.0])  # fmt: skip
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
VOTES, ZEROS = ("weighted", "sum", "count", "none"), ("majority", "positive", "drop")
COMBINES = ("mean", "signed_mean", "sum", "sum_by_count", "mean_of_all")


def values(shape, code, seed):
    """Coarse numbers, so that many are equal or cancel; zeros of both signs, tiny and large."""
    draw = torch.Generator().manual_seed(seed)
    coarse = (torch.randn(shape, generator=draw) * 4).round() / 4
    kind = torch.randint(0, 8, shape, generator=draw)
    coarse[kind == 0] *= 1e-40
    coarse[kind == 1] *= -0.0
    coarse[kind == 2] = torch.randn(shape, generator=draw)[kind == 2]
    coarse[kind == 3] *= 1e30
    return coarse.to(TYPES[code])


def stored(tensor):
    """As kernels take it."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy()
    return tensor.contiguous().numpy()


def by_kernel(method, base, models, code, arguments):
    out = np.full(len(base), 77, np.uint16 if code == "BF16" else np.float32)
    seen = kernels.find(method).merge(stored(base), stored(models), out, **arguments)
    return out, seen


def by_definition(method, base, models, code, arguments):
    described = describe(method)
    if described.space == "weight":
        result = described.function(models.float(), **arguments)
    else:
        base = base.float()
        result = base + described.function(models.float() - base, **arguments)
    return stored(result.to(TYPES[code]))


def same_bits(one, other):
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.mark.parametrize(("code", "out"), list(itertools.product(TYPES, TYPES)))
@pytest.mark.parametrize("weight", WEIGHTS, ids=len)
def test_average_and_task_arithmetic_have_the_definitions_bits(code, out, weight):
    for seed, size in enumerate(SIZES):
        base = values((size,), code, seed)
        models = values((len(weight), size), code, 100 + seed)
        for method, arguments in (
            ("average", {"normalize": sum(weight) != 0}),
            ("average", {"normalize": False}),
            ("task_arithmetic", {"scale": 0.4}),
            ("task_arithmetic", {"scale": -1.7}),
        ):
            given = arguments | {"weight": weight}
            found, seen = by_kernel(method, base, models, out, given)
            assert same_bits(found, by_definition(method, base, models, out, given)), (method, size)
            assert seen.finite


@pytest.mark.parametrize(("code", "out"), [("F32", "F32"), ("BF16", "BF16"), ("BF16", "F32")])
@pytest.mark.parametrize("weight", WEIGHTS, ids=len)
def test_ties_has_the_definitions_bits_for_every_reading_of_it(code, out, weight):
    n = len(weight)
    readings = list(itertools.product(VOTES, ZEROS, COMBINES))
    for number, (vote, zero, combine) in enumerate(readings):
        size = SIZES[number % len(SIZES)]
        base = values((size,), code, number)
        models = values((n, size), code, 100 + number)
        magnitudes = (models.float() - base.float()).abs()
        # a magnitude that occurs, everything, and nothing
        thresholds = [(float(row[len(row) // 2]) if size else 0.5) for row in magnitudes]
        thresholds[0] = (0.0, thresholds[0], 0.25, float("inf"))[number % 4]
        for majority, quota in ((1.0, None), (-1.0, [2] * n), (0.0, [0] + [-1] * (n - 1))):
            given = {
                "weight": weight, "thresholds": thresholds, "quota": quota, "vote": vote,
                "zero": zero, "combine": combine, "scale": (1.0, 0.3, -2.0)[number % 3],
                "majority": majority,
            }  # fmt: skip
            found, seen = by_kernel("ties", base, models, out, given)
            assert same_bits(found, by_definition("ties", base, models, out, given)), given
            deltas = models.float() - base.float()
            assert (seen.count, seen.depends) == MajoritySign().look(deltas, **given)
            bits = found.astype(np.uint32) << 16 if out == "BF16" else found.view(np.uint32)
            assert seen.finite == np.isfinite(bits.view(np.float32)).all()


def test_votes_that_cancel_are_among_those_tests():
    """Else the doubts would be compared where there are none."""
    given = {"weight": [1.0, 1.0], "thresholds": [0.0, 0.0], "vote": "weighted", "zero": "majority"}
    models = torch.tensor([[1.0, 2.0], [-1.0, 2.0]])
    settings = given | {"combine": "mean", "scale": 1.0, "majority": 1.0}
    _, seen = by_kernel("ties", torch.zeros(2), models, "F32", settings)
    assert (seen.count, seen.depends) == (1, True)


NANS = (0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 0xFF800000)


@pytest.mark.parametrize("pattern", NANS, ids=hex)
@pytest.mark.parametrize("out", TYPES)
@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
@pytest.mark.parametrize("place", ["model", "base"])
def test_nan_of_any_bits_and_infinity_are_seen_in_a_block(pattern, out, method, place):
    base, models = torch.zeros(1500), torch.ones(2, 1500)
    spoiled = models[1] if place == "model" else base
    spoiled.view(torch.int32)[1200] = int(np.uint32(pattern).view(np.int32))
    given = {"weight": [1.0, 1.0], "normalize": True, "scale": 1.0}
    if method == "ties":  # nothing is trimmed, so that no first pass has looked at the values
        given |= {"thresholds": [0.0, 0.0], "vote": "weighted", "zero": "positive"}
        given |= {"combine": "mean", "majority": 1.0}
    _, seen = by_kernel(method, base, models, out, given)
    assert seen.finite == (method == "average" and place == "base")


def test_results_beyond_bfloat16_are_seen():
    largest = torch.tensor([3.3895e38, 3.4e38])  # the second rounds to infinity
    given = {"weight": [1.0], "normalize": False}
    assert by_kernel("average", largest[:1], largest[None, :1], "BF16", given)[1].finite
    assert not by_kernel("average", largest, largest[None], "BF16", given)[1].finite
    assert by_kernel("average", largest, largest[None], "F32", given)[1].finite


@pytest.mark.parametrize("code", TYPES)
@pytest.mark.parametrize("kept", ["threshold", "kth", "count", "count_or_one"])
@pytest.mark.parametrize("density", [1e-4, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("sampled", [0, 9, 1])
def test_thresholds_by_kernels_are_the_sorted_ones(code, kept, density, sampled):
    size, n = 5000, 3
    base, models = values((size,), code, 1), values((n, size), code, 2)
    reduction = TrimThresholds(n, size, density=density, kept=kept, trim="model")
    blocks = [slice(start, min(start + 1300, size)) for start in range(0, size, 1300)]
    if sampled:
        shown = slice(None, None, sampled)
        assert sample(reduction, stored(base[shown]), stored(models[:, shown]))
    result = reduction.result() if sampled else None
    scratch = np.empty(1300, np.uint32)
    for _ in range(9):
        if result is not None:
            break
        for place, part in enumerate(blocks):
            assert measure(reduction, stored(base[part]), stored(models[:, part]), place, scratch)
        result = reduction.result()
    whole = np.sort(np.abs((models.float() - base.float()).numpy()), axis=1)
    for row, threshold in enumerate(result["thresholds"]):
        count = int(size * density)
        rank = {
            "threshold": size - count,
            "kth": max(1, int((1 - density) * size)) if density < 1 else 0,
            "count": size - count + 1 if density < 1 else 0,
            "count_or_one": size - max(1, count) + 1 if density < 1 else 0,
        }[kept]
        none = rank > size
        assert threshold == (np.inf if none else (whole[row, rank - 1] if rank else 0.0))
        if kept.startswith("count") and 0 < density < 1 and not none:
            larger = int((whole[row] > threshold).sum())
            equal = int((whole[row] == threshold).sum())
            quotas = [quota[row] for quota in result.get("quota", [])]
            kept_equals = equal if not quotas or quotas[0] < 0 else sum(quotas)
            assert larger + kept_equals == max(int(kept == "count_or_one"), count)


def family(home, types, shapes=((37, 31), (1025,), (), (0, 4), (64, 33)), n=3):
    """base, a, b, ...; each tensor of each model of the next of some types."""
    kinds = itertools.cycle(types)
    for seed, name in enumerate(("base", *"abcde"[:n])):
        draw = torch.Generator().manual_seed(seed)
        tensors = {
            f"layers.{number}.{part}": (torch.randn(shape, generator=draw) * 8).round().div(8)
            for number, shape in enumerate(shapes)
            for part in ("weight", "bias")
        }
        store(home / name, {key: tensor.to(next(kinds)) for key, tensor in tensors.items()})
    return list("abcde"[:n])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


CASES = [
    ("average", {}, {}),
    ("average", {"weight": 0.3, "normalize": False}, {}),
    ("task_arithmetic", {"scale": 0.7}, {"dtype": "float16"}),
    *(
        ("ties", {"trim": trim, "kept": kept, "density": 0.3}, {})
        for trim in ("model", "module", "tensor")
        for kept in ("threshold", "kth", "count", "count_or_one")
    ),
    ("ties", {"vote": "count", "combine": "sum", "scale": 0.3}, {"dtype": "bfloat16"}),
    ("ties", {"zero": "drop", "vote": "sum", "combine": "sum_by_count"}, {"dtype": "float32"}),
    *(("ties", {}, {"dialect": name}) for name in ("mergekit", "peft", "fusion_bench", "sd_mecha")),
]
MIXED = {
    "bfloat16": [torch.bfloat16],
    "float32": [torch.float32],
    "mixed": [torch.float16, torch.bfloat16, torch.float64, torch.float32, torch.bfloat16],
}


@pytest.mark.parametrize("types", MIXED)
def test_whole_merges_have_the_same_bytes_without_kernels(tmp_path, monkeypatch, types):
    names = family(tmp_path, MIXED[types])
    for number, (method, parameters, more) in enumerate(CASES):
        chosen = recipe(tmp_path, method, names, parameters=parameters, **more)
        run(plan(chosen), tmp_path / f"kernel-{number}")
        with monkeypatch.context() as patch:
            patch.setattr("alliage.merging.kernels.find", lambda _: None)
            run(plan(chosen), tmp_path / f"torch-{number}")
        found, expected = (files(tmp_path / f"{kind}-{number}") for kind in ("kernel", "torch"))
        assert found == expected, (method, parameters, more)


@pytest.mark.parametrize("kept", ["threshold", "count"])
def test_nan_that_no_first_pass_looks_at_is_named(tmp_path, kept):
    """With density 1 the thresholds are known beforehand; a sample shows little of the model."""
    size = 2**20 + 5000
    base = torch.zeros(size)
    spoiled = torch.ones(size)
    spoiled[300] = float("nan")  # between two slices of the sample
    store(tmp_path / "base", {"layers.0.weight": base})
    store(tmp_path / "a", {"layers.0.weight": torch.ones(size)})
    store(tmp_path / "b", {"layers.0.weight": spoiled})
    # ⌊dK⌋ = 0 keeps nothing
    density = {"threshold": 1.0, "count": 1e-9}[kept]
    parameters = {"density": density, "kept": kept}
    with pytest.raises(AlliageError, match=r"b.model\.safetensors: layers\.0\.weight: holds NaN"):
        run(plan(recipe(tmp_path, "ties", parameters=parameters)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merging_by_kernels_and_help_do_without_torch(tmp_path):
    names = family(tmp_path, [torch.bfloat16, torch.float32])
    inputs = {"base": str(tmp_path / "base"), "models": [str(tmp_path / name) for name in names]}
    recipes = [{"method": name, **inputs} for name in ("average", "task_arithmetic", "ties")]
    script = f"""
import json, sys
from alliage.merging import parse_recipe, plan, run
for recipe in json.loads({json.dumps(json.dumps(recipes))}):
    run(plan(parse_recipe(recipe)), {str(tmp_path)!r} + "/" + recipe["method"])
heavy = {{"torch", "transformers", "peft"}} & set(sys.modules)
assert not heavy, heavy
from alliage.cli import main
sys.argv = ["alliage", "--help"]
try:
    main()
except SystemExit as leave:
    assert leave.code == 0
heavy = {{"torch", "transformers", "peft", "numba"}} & set(sys.modules)
assert heavy == {{"numba"}}, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "merge" in done.stdout


def test_a_change_of_what_kernels_share_compiles_them_again():
    """Numba looks at each kernel's own file alone: its cache would go on with the old one."""
    from alliage.merging.kernels import average, floats

    assert average._average.py_func.__qualname__.endswith(floats._VERSION)
    stored_as = average._average._cache._impl.filename_base
    assert floats._VERSION in stored_as


@pytest.mark.parametrize("own", ["cache", "a file"])
def test_kernels_run_where_numba_may_write_nowhere(tmp_path, own):
    """Its code is then kept in Alliage's cache; without that, nowhere."""
    name, *_ = family(tmp_path, [torch.float32, torch.float32])
    package = tmp_path / "site" / "alliage"
    shutil.copytree(Path(alliage.__file__).parent, package,
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    (package / "merging" / "kernels" / "__pycache__").touch()  # no folder, not even for root
    (tmp_path / "a file").touch()
    nowhere = str(tmp_path / "a file" / "within")
    own_cache = nowhere if own == "a file" else str(tmp_path / own)
    places = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "ALLIAGE_CACHE": own_cache}
    chosen = {"method": "average", "base": str(tmp_path / "base"), "models": [str(tmp_path / name)]}
    script = f"""
import alliage
from alliage.merging import parse_recipe, plan, run
assert alliage.__file__.startswith({str(package)!r}), alliage.__file__
run(plan(parse_recipe({chosen!r})), {str(tmp_path / "out")!r})
"""
    environment = os.environ | places | {"PYTHONPATH": str(package.parent)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    compiled = list((tmp_path / "cache").glob("numba/*/*.nbc"))
    assert bool(compiled) == (own == "cache")
