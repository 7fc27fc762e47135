"""How blocks are computed: whole matrices, any blocks and threads; against float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from alliage.errors import AlliageError
from alliage.merging import parse_recipe, plan, run
from tests.merging.test_odd_inputs import recipe, store, three

# -- whole matrices


@pytest.fixture
def polar(plug_in):
    """The nearest orthogonal matrix to the sum of the task vectors; vectors are averaged."""
    seen = []

    @plug_in("polar", unit="tensor", space="delta", paper="none")
    def function(deltas):
        """Take the polar factor."""
        seen.append(tuple(deltas.shape))
        if deltas.ndim != 3 or not deltas.numel():
            return deltas.mean(0)
        U, _, Vt = torch.linalg.svd(deltas.sum(0), full_matrices=False)
        return U @ Vt

    return seen


SHAPES = {"layers.0.weight": (40, 24), "layers.1.weight": (24, 40), "layers.1.bias": (24,),
          "norm.weight": (), "empty.weight": (0, 5)}  # fmt: skip


@pytest.fixture
def home(tmp_path):
    for seed, name in enumerate(("base", "a", "b")):
        draw = torch.Generator().manual_seed(seed)
        content = {key: torch.randn(shape, generator=draw) for key, shape in SHAPES.items()}
        store(tmp_path / name, content)
    return tmp_path


def whole(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_method_on_tensors_gets_whole_matrices_with_their_shape(home, polar):
    from scipy.linalg import polar as reference

    run(plan(recipe(home, "polar")), home / "out")
    assert sorted(polar) == sorted((2, *shape) for shape in SHAPES.values())
    base, a, b, out = (
        load_file(home / name / "model.safetensors") for name in ("base", "a", "b", "out")
    )
    for name in ("layers.0.weight", "layers.1.weight"):
        total = (a[name] - base[name]).double() + (b[name] - base[name]).double()
        expected = base[name].double() + torch.from_numpy(reference(total.numpy())[0])
        torch.testing.assert_close(out[name].double(), expected, rtol=0, atol=2e-6)
    assert out["norm.weight"].shape == ()
    assert out["empty.weight"].shape == (0, 5)


def test_whole_matrices_and_threads_do_not_change_bytes(home, polar):
    run(plan(recipe(home, "polar")), home / "one")
    made = plan(recipe(home, "polar"), threads=3)
    assert made.workers == 3
    run(made, home / "three")
    assert whole(home / "one") == whole(home / "three")


def test_fewer_workers_hold_whole_matrices_where_memory_is_short(home, polar):
    chosen = recipe(home, "polar")
    least = plan(chosen).least_memory
    assert least >= 3 * 4 * 40 * 24  # base and models at the very least
    assert plan(chosen, threads=4, memory=2 * least).workers == 2
    short = plan(chosen, threads=4, memory=least - 1)
    assert short.workers == 1
    assert short.problems == []
    assert any("holds the largest matrix of all models" in note for note in short.notes)
    run(short, home / "short")
    run(plan(chosen), home / "ample")
    assert whole(home / "short") == whole(home / "ample")


def test_a_truncated_spectrum_on_weights(home, plug_in):
    @plug_in("low_rank", unit="tensor", space="weight", paper="none")
    def low_rank(weights, *, rank: int = 1):
        """Keep the largest singular values of the mean.

        Args:
            weights: [n, ...].
            rank: how many.
        """
        mean = weights.mean(0)
        if mean.ndim != 2 or not mean.numel():
            return mean
        U, S, Vt = torch.linalg.svd(mean.double(), full_matrices=False)
        return ((U[:, :rank] * S[:rank]) @ Vt[:rank]).float()

    run(plan(recipe(home, "low_rank", base=None, parameters={"rank": 3})), home / "out")
    a, b, out = (load_file(home / name / "model.safetensors") for name in ("a", "b", "out"))
    for name in ("layers.0.weight", "layers.1.weight"):
        mean = ((a[name] + b[name]) / 2).double().numpy()
        U, S, Vt = np.linalg.svd(mean, full_matrices=False)
        expected = (U[:, :3] * S[:3]) @ Vt[:3]
        np.testing.assert_allclose(out[name].double().numpy(), expected, rtol=0, atol=1e-6)


# -- any blocks, threads and shards; dense float64


def dense(name, base, models, weights, arguments):
    """In float64, from the papers' formulas; nothing of the code under test."""
    deltas = [model - base for model in models]
    if name == "average":
        return sum(w * m for w, m in zip(weights, models, strict=True)) / sum(weights)
    if name == "task_arithmetic":
        return base + arguments["scale"] * sum(w * d for w, d in zip(weights, deltas, strict=True))
    if name == "slerp":
        a, b = models
        norms = a.norm() * b.norm()
        angle = math.acos(max(-1, min(1, float((a * b).sum() / norms)))) if norms else math.pi / 2
        t = arguments["t"]
        if math.cos(angle) ** 2 > 0.9995**2:
            return (1 - t) * a + t * b
        return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
    total, share = torch.zeros_like(base), torch.zeros_like(base)
    sign = sum(w * d for w, d in zip(weights, deltas, strict=True)).sign()  # nothing is trimmed
    for w, d in zip(weights, deltas, strict=True):
        agrees = (w * d * sign) > 0
        total += torch.where(agrees, w * d, 0.0)
        share += agrees * w
    return base + total / torch.where(share != 0, share, 1.0)


METHODS = {"average": {}, "task_arithmetic": {"scale": 0.7}, "ties": {"density": 1.0},
           "slerp": {"t": 0.3}}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_small_models_any_blocks_threads_and_files(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("any")
    name = data.draw(st.sampled_from(sorted(METHODS)))
    n = 2 if name == "slerp" else data.draw(st.integers(1, 4))
    sizes = st.lists(st.sampled_from((1, 2, 5, 70)), max_size=2)
    shapes = [*data.draw(st.lists(sizes, min_size=1, max_size=3)), [3, 4200]]
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    names = ["base", *"abcd"[:n]]
    held = {
        each: {f"layers.{k}.weight": torch.randn(s, generator=draw) for k, s in enumerate(shapes)}
        for each in names
    }
    for each, tensors in held.items():
        split = data.draw(st.booleans())
        store(home / each, tensors, shards=[[key] for key in tensors] if split else None)
    weights = [data.draw(st.sampled_from((0.25, 1.0, 2.0))) for _ in range(n)]
    weighed = name != "slerp"
    content = {
        "method": name,
        "base": str(home / "base"),
        "models": [
            {"model": str(home / each)} | ({"parameters": {"weight": w}} if weighed else {})
            for each, w in zip(names[1:], weights, strict=True)
        ],
        "parameters": METHODS[name],
    }
    chosen = parse_recipe(content)
    run(plan(chosen), home / "out")
    threads = data.draw(st.integers(1, 3))
    tight = plan(chosen, threads=threads, memory=plan(chosen, threads=threads).memory_for(threads))
    assert tight.block == 4096
    run(tight, home / "tight")
    assert whole(home / "tight") == whole(home / "out")
    run(plan(chosen, shard_bytes=1), home / "shards")
    sharded = {}
    for file in (home / "shards").glob("*.safetensors"):
        sharded |= load_file(file)
    for key, found in load_file(home / "out" / "model.safetensors").items():
        base, *models = (held[each][key].double() for each in names)
        expected = dense(name, base, models, weights, METHODS[name])
        torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=2e-6)
        assert torch.equal(sharded[key], found)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dare_linear", {"rescale": "inverse"}),
        ("dare_linear", {"rescale": "l1", "density": 0.3}),
        ("dare_ties", {"rescale": "l1", "combine": "sum"}),
        ("slerp", {"t": 0.37}),
        ("ties", {"kept": "count", "trim": "tensor", "density": 0.3}),
    ],
)
def test_blocks_and_threads_do_not_change_what_first_passes_and_draws_give(
    tmp_path, name, parameters
):
    """Sums over whole tensors must not depend on where blocks end."""
    for seed in range(6):
        home = tmp_path / str(seed)
        for model, tensor in zip(("base", "a", "b"), three((3, 9001), seed), strict=True):
            store(home / model, {f"layers.{k}.weight": tensor * (k + 0.3) for k in range(4)})
        chosen = recipe(home, name, parameters=parameters)
        run(plan(chosen), home / "one")
        tight = plan(chosen, threads=2, memory=plan(chosen, threads=2).memory_for(2))
        run(tight, home / "tight")
        assert whole(home / "one") == whole(home / "tight")


def test_a_flaw_that_only_the_definition_reads_is_named(home, polar):
    content = load_file(home / "a" / "model.safetensors")
    content["layers.1.weight"][3, 3] = math.inf
    store(home / "c", content)
    with pytest.raises(AlliageError, match=r"c.model\.safetensors: layers\.1\.weight: holds NaN"):
        run(plan(recipe(home, "polar", ["b", "c"])), home / "out")
    assert not (home / "out").exists()
