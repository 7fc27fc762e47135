"""Merges of whatever shapes, types, files and threads, against float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from alliage.merging import parse_recipe, plan, run
from tests.merging.test_odd_inputs import store

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_shapes_types_blocks_and_threads(tmp_path_factory, data):
    """Sums of a few models in float64; float32 arithmetic and one rounding may lie beside them."""
    home = tmp_path_factory.mktemp("any")
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    sizes = st.lists(st.sampled_from((0, 1, 2, 3, 5, 64, 130)), max_size=3)
    shapes = data.draw(st.lists(sizes, min_size=1, max_size=5))
    weights = data.draw(st.lists(st.sampled_from((-1.0, 0.25, 1.0, 2.0)), min_size=1, max_size=4))
    names = [f"m{number}" for number in range(len(weights))]
    method = data.draw(st.sampled_from(("average", "task_arithmetic")))
    held = {}
    for name in ("base", *names):
        types = [data.draw(st.sampled_from(FLOATS)) for _ in shapes]
        held[name] = {
            f"layers.{k}.weight": torch.randn(shape, generator=draw).to(types[k])
            for k, shape in enumerate(shapes)
        }
        split = data.draw(st.booleans())
        store(home / name, held[name], shards=[[key] for key in held[name]] if split else None)
    entries = [
        {"model": str(home / name), "parameters": {"weight": weight}}
        for name, weight in zip(names, weights, strict=True)
    ]
    parameters = {"normalize": False} if method == "average" else {"scale": 0.5}
    content = {"method": method, "base": str(home / "base"), "models": entries}
    chosen = parse_recipe(content | {"parameters": parameters})
    threads = data.draw(st.integers(1, 3))
    memory = plan(chosen, threads=threads).memory_for(threads)
    run(plan(chosen, threads=threads, memory=memory), home / "out")
    for key, found in load_file(home / "out" / "model.safetensors").items():
        base = held["base"][key].double()
        terms = [
            weight * (held[name][key].double() - (0 if method == "average" else base))
            for name, weight in zip(names, weights, strict=True)
        ]
        expected = sum(terms) if method == "average" else base + 0.5 * sum(terms)
        assert found.dtype == held["base"][key].dtype
        size = base.abs() + sum(term.abs() for term in terms)
        allowed = torch.finfo(found.dtype).eps / 2 * expected.abs() + 2**-22 * size + 2**-25
        assert ((found.double() - expected).abs() <= allowed).all()
