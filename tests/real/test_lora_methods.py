"""LoRA methods against PEFT's add_weighted_adapter, in every combination type, and FusionBench.

    combination type                         the same by Alliage
    cat                                      lora_concat
    svd                                      lora_svd, rank: svd_rank
    linear                                   factor_average, dialect peft
    ties, dare_*, magnitude_prune            the same, rule: the type's name
    ties_svd, dare_*_svd, magnitude_prune_svd    the block method, dialect peft, on the adapters: a
                                             full model; then alliage extract to svd_rank

The types without svd that PEFT names after other methods merge A and B apart, with cross terms.
PEFT's own random numbers are recorded and given to our functions.
"""

from __future__ import annotations

import math

import pytest
import torch

import alliage
from alliage import vectors
from alliage.merging import get_method
from alliage.merging.recipe.dialects import preset
from alliage.merging.rules import by_rule
from alliage.tuning import extract
from tests.real.peers import Question
from tests.vectors.test_low_rank import bert

pytestmark = pytest.mark.real

WEIGHTS = (0.7, -0.4, 1.1)
DENSITY = 0.4
TARGETS = ["query", "intermediate.dense"]
ALIKE = [{"r": 3, "lora_alpha": 6}] * 3
OTHERS = [
    {"r": 2, "lora_alpha": 4},
    {"r": 5, "lora_alpha": 3},
    {"r": 3, "lora_alpha": 6, "use_rslora": True},
]


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Folders with a base and three adapters, of one rank and scale or of several."""
    from peft import LoraConfig, get_peft_model

    made = {}
    for kind, all_settings in (("alike", ALIKE), ("others", OTHERS)):
        home = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        bert().save_pretrained(home / "base")
        for number, settings in enumerate(all_settings):
            torch.manual_seed(number + 1)
            adapted = get_peft_model(
                type(bert()).from_pretrained(home / "base"),
                LoraConfig(target_modules=TARGETS, **settings),
            )
            for key, parameter in adapted.named_parameters():
                if "lora_" in key:
                    torch.nn.init.normal_(parameter, std=0.3)
            adapted.peft_config["default"].base_model_name_or_path = str(home / "base")
            adapted.save_pretrained(home / str(number))
        made[kind] = home
    return made


def by_peft(home, combination, weights=WEIGHTS, **settings):
    """PEFT's merged adapter: the update of each parameter, by the base's names."""
    from peft import PeftModel

    model = type(bert()).from_pretrained(home / "base")
    adapted = PeftModel.from_pretrained(model, home / "0", adapter_name="0")
    for number in ("1", "2"):
        adapted.load_adapter(home / number, adapter_name=number)
    adapted.base_model.add_weighted_adapter(
        ["0", "1", "2"], list(weights), "merged", combination, **settings
    )
    return {
        f"{name}.weight": layer.get_delta_weight("merged")
        for name, layer in adapted.base_model.model.named_modules()
        if hasattr(layer, "lora_A")
    }


def compared(folder, home, expected):
    found = vectors.open(folder, home / "base")
    assert set(expected) <= set(found.shapes)
    for name, update in expected.items():
        assert update.abs().max() > 1e-3
        torch.testing.assert_close(found.delta(name), update, rtol=1e-4, atol=2e-6)


def models(home, weights=WEIGHTS):
    return {home / str(number): weight for number, weight in enumerate(weights)}


@pytest.mark.parametrize(
    ("combination", "settings", "method", "parameters"),
    [
        ("cat", {}, "lora_concat", {}),
        ("svd", {}, "lora_svd", {}),
        ("svd", {"svd_rank": 4}, "lora_svd", {"rank": 4}),
    ],
)
@pytest.mark.parametrize("kind", ["alike", "others"])
def test_sums(homes, tmp_path, kind, combination, settings, method, parameters):
    home = homes[kind]
    alliage.merge(method, models=models(home), out=tmp_path / "out", **parameters)
    compared(tmp_path / "out", home, by_peft(home, combination, **settings))


PRUNED = [
    ("ties", {}, {"rule": "ties"}),
    ("ties", {"majority_sign_method": "frequency"}, {"rule": "ties", "vote": "count"}),
    ("magnitude_prune", {}, {"rule": "magnitude_prune"}),
]


@pytest.mark.parametrize(("combination", "settings", "parameters"), PRUNED)
def test_factors_apart(homes, tmp_path, combination, settings, parameters):
    home, out = homes["alike"], tmp_path / "out"
    alliage.merge(
        "factor_average", models=models(home), out=out, dialect="peft", density=DENSITY,
        **parameters,
    )  # fmt: skip
    compared(out, home, by_peft(home, combination, density=DENSITY, **settings))


def test_linear(homes, tmp_path):
    home, out = homes["alike"], tmp_path / "out"
    alliage.merge("factor_average", models=models(home), out=out, dialect="peft")
    compared(out, home, by_peft(home, "linear"))


@pytest.mark.parametrize(("combination", "settings", "parameters"), PRUNED)
@pytest.mark.parametrize("kind", ["alike", "others"])
def test_whole_updates_cut(homes, tmp_path, kind, combination, settings, parameters):
    home, full, out = homes[kind], tmp_path / "full", tmp_path / "out"
    given = {key: value for key, value in parameters.items() if key != "rule"}
    alliage.merge(
        parameters["rule"], models=models(home), base=home / "base", out=full, dialect="peft",
        density=DENSITY, **given,
    )  # fmt: skip
    extract(full, base=home / "base", out=out, rank=4)
    expected = by_peft(home, f"{combination}_svd", density=DENSITY, svd_rank=4, **settings)
    compared(out, home, expected)


@pytest.fixture
def masks(monkeypatch):
    """What PEFT's draws keep, in the order in which it asks for them."""
    recorded, drawn = [], torch.bernoulli

    def bernoulli(*arguments, **settings):
        recorded.append(drawn(*arguments, **settings))
        return recorded[-1]

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    return recorded


@pytest.mark.parametrize("rule", ["dare_linear", "dare_ties"])
def test_random_factors_apart(homes, masks, rule):
    home = homes["alike"]
    torch.manual_seed(0)
    expected = by_peft(home, rule, density=DENSITY)
    adapters = [vectors.open(home / str(number), home / "base") for number in range(3)]
    kept = iter(list(masks))
    given = preset("peft", rule) | {"rule": rule, "root": True, "density": DENSITY}
    for name, update in expected.items():
        of_A, of_B = ([next(kept) for _ in range(3)] for _ in "AB")
        factors = [vector.factors(name.removesuffix(".weight")) for vector in adapters]
        root = math.sqrt(factors[0].scale)

        def apply(rule, tensors, parameters, masks=(of_B, of_A)):
            of_B, of_A = (torch.stack(each) for each in masks)
            mask = of_B if tensors.shape == of_B.shape else of_A
            return by_rule(rule, tensors, parameters | {"uniform": (1 - mask) * 0.99})

        B, A = get_method("factor_average")(
            [f.B * root for f in factors], [f.A * root for f in factors],
            weight=list(WEIGHTS), apply=apply, **given,
        )  # fmt: skip
        torch.testing.assert_close(B @ A, update, rtol=1e-4, atol=2e-6)
    assert next(kept, None) is None


@pytest.mark.parametrize("rule", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("kind", ["alike", "others"])
def test_random_whole_updates_cut(homes, masks, kind, rule):
    home = homes[kind]
    torch.manual_seed(0)
    expected = by_peft(home, f"{rule}_svd", density=DENSITY, svd_rank=4)
    adapters = [vectors.open(home / str(number), home / "base") for number in range(3)]
    kept = iter(list(masks))
    for name, update in expected.items():
        deltas = torch.stack([vector.delta(name) for vector in adapters])
        dropped = 1 - torch.stack([next(kept) for _ in range(3)])
        merged = get_method(rule)(
            deltas, weight=list(WEIGHTS), density=DENSITY, uniform=dropped * 0.99,
            **preset("peft", rule),
        )  # fmt: skip
        U, S, Vt = torch.linalg.svd(merged.double(), full_matrices=False)
        cut = (U[:, :4] * S[:4]) @ Vt[:4]
        torch.testing.assert_close(cut.float(), update, rtol=1e-4, atol=2e-6)


def test_knots_aligns_as_fusion_bench_does(homes, peers, tmp_path):
    home = homes["others"]
    adapters = [vectors.open(home / str(number), home / "base") for number in range(3)]
    modules = adapters[0].modules
    questions = {}
    for number, module in enumerate(modules):
        deltas = torch.stack([vector.delta(f"{module}.weight") for vector in adapters])
        for part in ("basis", "aligned"):
            questions[f"{part}-{number}"] = Question(part, {"deltas": deltas})
    answers = peers.ask("ask_fusion_bench_knots.py", questions, tmp_path)
    for rule in ("ties", "task_arithmetic", "magnitude_prune"):
        for number, module in enumerate(modules):
            U, aligned = (answers[f"{part}-{number}"] for part in ("basis", "aligned"))
            factors = [vector.factors(module) for vector in adapters]
            B, A = get_method("knots")(
                [f.B * f.scale for f in factors], [f.A for f in factors], rule=rule
            )
            assert B.shape == U.shape
            expected = U @ get_method(rule)(aligned)
            torch.testing.assert_close(B @ A, expected, rtol=1e-3, atol=5e-6)
