"""Rules that see all modules as one vector, against the rule on that vector."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage import vectors
from alliage.merging import get_method, parse_recipe, plan, run
from alliage.randomness import uniform
from tests.merging.engine.test_factors import CASES, tune
from tests.vectors.test_low_rank import bert


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    tune(bert(), folder, bert, CASES["other modules"][1])
    return folder


def merged(home, out, method="knots", threads=1, **parameters):
    content = {
        "method": method, "parameters": parameters,
        "models": [str(home / name) for name in "012"],
    }  # fmt: skip
    stages = []
    made = plan(parse_recipe(content), threads=threads)
    run(made, out, on_event=lambda stage, *_: stages.append(stage))
    return vectors.open(out, home / "base"), set(stages)


def coordinates(home):
    """The authors' U and ΣVᵢ of each module, in numpy; zero for an adapter without it."""
    adapters = [vectors.open(home / name, home / "base") for name in "012"]
    found = {}
    for module in dict.fromkeys(m for vector in adapters for m in vector.modules):
        name = f"{module}.weight"
        shape = next(vector.shapes[name] for vector in adapters if name in vector.shapes)
        updates = [
            vector.delta(name).double().numpy() if name in vector.shapes else np.zeros(shape)
            for vector in adapters
        ]
        U, S, Vt = np.linalg.svd(np.concatenate(updates, axis=1), full_matrices=False)
        kept = S > 1e-5
        aligned = (S[:, None] * Vt)[kept]
        aligned[np.abs(aligned) < 1e-12] = 0  # an adapter without the module has nothing there
        parts = np.split(aligned, len(updates), axis=1)
        found[name] = U[:, kept], torch.tensor(np.stack(parts), dtype=torch.float32)
    return found


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ("ties", {"density": 0.3}),
        ("ties", {"density": 0.3, "kept": "count"}),
        ("magnitude_prune", {"density": 0.25, "trim": "model"}),
    ],
)
def test_all_modules_are_trimmed_as_one_vector(home, tmp_path, rule, parameters):
    found, stages = merged(home, tmp_path / "out", rule=rule, **parameters)
    assert stages == {"reading", "merging", "hashing inputs"}
    spaces = coordinates(home)
    sizes = [part[0].numel() for _, part in spaces.values()]
    whole = torch.cat([part.flatten(1) for _, part in spaces.values()], dim=1)
    rows = get_method(rule)(whole, **parameters).split(sizes)
    apart = 0.0
    for (name, (U, part)), row in zip(spaces.items(), rows, strict=True):
        expected = U @ row.reshape(part.shape[1:]).double().numpy()
        np.testing.assert_allclose(found.delta(name).numpy(), expected, atol=5e-6)
        by_itself = U @ get_method(rule)(part, **parameters).double().numpy()
        apart = max(apart, np.abs(by_itself - expected).max())
    assert apart > 0.1


def test_each_module_by_itself_is_read_once(home, tmp_path):
    found, stages = merged(home, tmp_path / "out", rule="ties", trim="tensor", density=0.3)
    assert stages == {"merging", "hashing inputs"}
    for name, (U, part) in coordinates(home).items():
        expected = U @ get_method("ties")(part, density=0.3).double().numpy()
        np.testing.assert_allclose(found.delta(name).numpy(), expected, atol=5e-6)
    module, _ = merged(home, tmp_path / "module", rule="ties", trim="module", density=0.3)
    assert all(torch.equal(module.delta(name), found.delta(name)) for name in found.shapes)


def test_threads_do_not_show(home, tmp_path):
    written = []
    for threads in (1, 2):
        out = tmp_path / str(threads)
        merged(home, out, threads=threads, rule="ties", kept="count", density=0.3)
        written.append((out / "adapter_model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_draws_are_by_seed_module_call_and_model(home, tmp_path):
    found, _ = merged(home, tmp_path / "out", rule="dare_linear", density=0.5, seed=3)
    for name, (U, part) in coordinates(home).items():
        module = name.removesuffix(".weight")
        rows = [uniform(3, f"{module}/0", model, 0, part[0].numel()) for model in range(3)]
        draws = torch.tensor(np.stack(rows)).reshape(part.shape)
        merge = get_method("dare_linear")
        expected = U @ merge(part, density=0.5, uniform=draws).double().numpy()
        np.testing.assert_allclose(found.delta(name).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_cancelled_votes_go_with_the_majority_of_all_factors(home, tmp_path, sign):
    """A is 1 in one adapter and −1 in the other, so that B, of one sign in both, decides."""
    for number, opposite in enumerate((1.0, -1.0)):
        shutil.copytree(home / "2", tmp_path / str(number))
        file = tmp_path / str(number) / "adapter_model.safetensors"
        filled = {
            name: torch.full_like(tensor, opposite if "lora_A" in name else sign)
            for name, tensor in load_file(file).items()
        }
        save_file(filled, file)
    content = {
        "method": "factor_average", "parameters": {"rule": "ties", "density": 1.0},
        "models": [str(tmp_path / "0"), str(tmp_path / "1")],
    }  # fmt: skip
    stages = []
    run(plan(parse_recipe(content)), tmp_path / "out", on_event=lambda *e: stages.append(e[0]))
    assert ("merging again" in stages) == (sign < 0)  # the guess is positive
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for tensor in found.values():  # the root of the scale, α/r = 4
        assert torch.equal(tensor, torch.full_like(tensor, 2 * sign))


def test_a_wrong_guess_that_the_type_cannot_hold_is_no_problem(home, tmp_path):
    """Guessed to be positive, A's votes 8, −4, −4 give 8e4, too large; settled they give −4e4."""
    for number, entry in enumerate((4e4, -2e4, -2e4)):  # times the root of the scale, 2
        shutil.copytree(home / "2", tmp_path / str(number))
        file = tmp_path / str(number) / "adapter_model.safetensors"
        filled = {
            name: torch.full_like(tensor, entry if "lora_A" in name else -1.0)
            for name, tensor in load_file(file).items()
        }
        save_file(filled, file)
    content = {
        "method": "factor_average", "parameters": {"rule": "ties", "density": 1.0},
        "models": [str(tmp_path / name) for name in "012"], "dtype": "float16",
    }  # fmt: skip
    stages = []
    run(plan(parse_recipe(content)), tmp_path / "out", on_event=lambda *e: stages.append(e[0]))
    assert "merging again" in stages
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for name, tensor in found.items():
        expected = torch.full_like(tensor, -4e4 if "lora_A" in name else -2)
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, expected)
