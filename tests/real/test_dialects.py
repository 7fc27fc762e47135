"""Dialects of TIES and other methods against the real functions of their projects.

Answers are equal bit by bit wherever a peer defines them and adds in the order of the models, as
PyTorch's sums do for up to four; else the bound on rounding errors is said. Read and run were
mergekit 0.1.5, PEFT 0.21.2, FusionBench 0.2.33 and sd-mecha 1.1.8. What they do in TIES:

kept      mergekit: max(1, ⌊density·n⌋) of each tensor; PEFT: ⌊density·n⌋ of each tensor, also 0;
          both leave open which of equal magnitudes stay (an unstable sort, an unstable top-k).
          FusionBench: those of the whole model ≥ the (d − ⌊dK⌋)-th smallest, which does not exist
          for K = 1. sd-mecha: those of a tensor ≥ the max(⌊(1 − k)n⌋, 1)-th smallest.
vote      mergekit: sgn Σ wᵢτ̂ᵢ, and wᵢτ̂ᵢ has to agree; PEFT: sgn Σ τ̂ᵢ or sgn Σ sgn τ̂ᵢ ("frequency"),
          and τ̂ᵢ has to agree; FusionBench: sgn Σ τ̂ᵢ; sd-mecha: sgn Σ sgn τ̂ᵢ, or, with "vote_sgn",
          sgn Σ τ̂ᵢ.
zero sum  mergekit and PEFT: positive; FusionBench: the majority of all signs, and negative where
          there is none; sd-mecha: nothing stays.
combine   mergekit: Σwτ̂/Σw, negative w too, a Σw of exactly 0 taken as 1; PEFT: Σwτ̂ by the number
          that agree; FusionBench: the sum; sd-mecha: the mean.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from alliage.merging import get_method
from alliage.merging.recipe.dialects import preset
from tests.real.peers import Question
from tests.real.peers.cases import WEIGHTS, Case, cases, coarse, draw

pytestmark = pytest.mark.real

EPS = torch.finfo(torch.float32).eps


def ours(dialect: str, method: str, tensors: Tensor, **changes) -> Tensor:
    """The dialect's method on [n, ...], with changes of its parameters."""
    return get_method(method)(tensors, **{**preset(dialect, method), **changes})


def over(some: dict[str, Case]):
    return pytest.mark.parametrize("case", some.values(), ids=some.keys())


def near(found: Tensor, expected: Tensor, terms: Tensor, steps: int) -> bool:
    """Whether two sums differ by no more than roundings of that many steps over their terms."""
    bound = steps * EPS * terms.abs().sum(dim=0)
    return bool(((found - expected).abs() <= bound).all())


# mergekit

BY_MERGEKIT = cases(weights=tuple(WEIGHTS), counted=True)
DELTAS = draw(3, 30, 20, seed=4)
BASE = draw(30, 20, seed=5)
BFLOAT_BASE = BASE.bfloat16()
BFLOAT_MODELS = (BASE + 0.1 * DELTAS).bfloat16()
MANY = draw(7, 30, 20, seed=6)
PAIRS = {
    "apart": draw(2, 30, 20, seed=7),
    "close": torch.stack([BASE, BASE + 0.036 * DELTAS[0]]),  # cosine 0.9993: on the arc
    "closer": torch.stack([BASE, BASE + 0.027 * DELTAS[0]]),  # cosine 0.9996: on the line
    "parallel": torch.stack([BASE, 2 * BASE]),
    "opposite": torch.stack([BASE, -2 * BASE]),
    "nothing": torch.stack([BASE, 0 * BASE]),
    "vectors": draw(2, 50, seed=9),
}
SHARES = (0.0, 0.3, 1.0)
DARE = {"weight": WEIGHTS["unequal"][:3], "density": 0.4}


def between_magnitudes(deltas: Tensor, share: float) -> list[float]:
    """For each vector a density near some share by which no magnitude is both kept and trimmed."""
    magnitudes = deltas.abs().flatten(1)
    limits = magnitudes.quantile(1 - share, dim=1, keepdim=True)
    return ((((magnitudes > limits).sum(dim=1)) + 0.5) / magnitudes.shape[1]).tolist()


def on_zero(deltas: Tensor, method: str, **arguments) -> Question:
    """mergekit on a base of zeros: what it adds to the base."""
    tensors = {"models": deltas, "base": torch.zeros_like(deltas[0])}
    return Question("merge", tensors, {"method": method, **arguments})


def of_models(models: Tensor, method: str, **arguments) -> Question:
    return Question("merge", {"models": models}, {"method": method, **arguments})


@pytest.fixture(scope="module")
def mergekit(peers, tmp_path_factory) -> dict[str, Tensor]:
    questions = {
        name: on_zero(case.deltas, "ties", weight=case.weight, density=case.density)
        for name, case in BY_MERGEKIT.items()
    }
    weight, density = WEIGHTS["unequal"][:3], 0.4
    questions |= {
        "ties by default": on_zero(DELTAS, "ties", weight=weight),
        "task arithmetic": on_zero(DELTAS, "task_arithmetic", weight=weight),
        "normalize": on_zero(
            DELTAS, "ties", weight=weight, density=density, normalize=False, **{"lambda": 0.7}
        ),
        "densities": on_zero(DELTAS, "ties", weight=weight, density=[0.1, 0.5, 1.0]),
        "tiny weights": on_zero(DELTAS, "ties", weight=[1e-9, 2e-9, 3e-9], density=density),
        "int8_mask": on_zero(DELTAS, "ties", weight=weight, density=density, int8_mask=True),
        "many": on_zero(MANY, "ties", weight=1.0, density=density),
        "level": on_zero(coarse(1, 2000), "ties", weight=1.0, density=0.3),
        "bfloat16": Question(
            "merge",
            {"models": BFLOAT_MODELS, "base": BFLOAT_BASE},
            {
                "method": "ties", "weight": weight,
                "density": between_magnitudes(BFLOAT_MODELS.float() - BFLOAT_BASE.float(), density),
                "dtype": "float32", "out_dtype": "bfloat16",
            },
        ),
        "scaled": of_models(DELTAS[:1], "passthrough", scale=0.3),
        "dare": on_zero(DELTAS, "dare_linear", **DARE),
        "dare, not rescaled": on_zero(DELTAS, "dare_linear", rescale=False, **DARE),
        "dare ties": on_zero(DELTAS, "dare_ties", **DARE),
        "taken away": on_zero(DELTAS[:1], "ties", weight=[-1.0]),
        "nearly opposite": on_zero(DELTAS[:2], "ties", weight=[1.0, -0.99]),
        "dare ties, taken away": on_zero(
            DELTAS, "dare_ties", normalize=True, **DARE | {"weight": [1.0, -0.99, -0.4]}
        ),
    }  # fmt: skip
    for name, shares in WEIGHTS.items():
        questions[f"linear {name}"] = of_models(DELTAS, "linear", weight=shares[:3])
        questions[f"linear sum {name}"] = of_models(
            DELTAS, "linear", weight=shares[:3], normalize=False
        )
    for name, (base, other) in PAIRS.items():
        for t in SHARES:
            questions[f"slerp {name} {t}"] = Question(
                "merge", {"models": other[None], "base": base}, {"method": "slerp", "t": t}
            )
    return peers.ask("ask_mergekit.py", questions, tmp_path_factory.mktemp("mergekit"))


@over(BY_MERGEKIT)
def test_ties_is_mergekits(mergekit, case):
    found = ours("mergekit", "ties", case.deltas, weight=case.weight, density=case.density)
    assert torch.equal(found, mergekit[str(case)])


def test_ties_has_mergekits_defaults(mergekit):
    found = ours("mergekit", "ties", DELTAS, weight=WEIGHTS["unequal"][:3])
    assert torch.equal(found, mergekit["ties by default"])


def test_task_arithmetic_is_mergekits(mergekit):
    found = ours("mergekit", "task_arithmetic", DELTAS, weight=WEIGHTS["unequal"][:3])
    assert torch.equal(found, mergekit["task arithmetic"])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("normalize", {"combine": "sum", "scale": 0.7}),
        ("densities", {"density": [0.1, 0.5, 1.0]}),
        ("tiny weights", {"weight": [1e-9, 2e-9, 3e-9]}),
        ("int8_mask", {}),  # changes nothing
    ],
)
def test_what_mergekits_settings_of_ties_mean_here(mergekit, name, changes):
    settings = {"weight": WEIGHTS["unequal"][:3], "density": 0.4} | changes
    assert torch.equal(ours("mergekit", "ties", DELTAS, **settings), mergekit[name])


@pytest.mark.parametrize(
    ("name", "weight"), [("taken away", [-1.0]), ("nearly opposite", [1.0, -0.99])]
)
def test_mergekit_divides_by_negative_weights_and_we_by_their_magnitudes(mergekit, name, weight):
    deltas = DELTAS[: len(weight)]
    assert torch.equal(ours("mergekit", "ties", deltas, weight=weight), mergekit[name])
    plain = ours("mergekit", "ties", deltas, weight=weight, combine="mean")
    wrong = mergekit[name].abs() > 1.01 * plain.abs()
    wrong |= mergekit[name].sign() != plain.sign()
    assert bool(wrong.any())


def test_ties_of_many_models_is_mergekits_but_for_the_order_of_its_sums(mergekit):
    found = ours("mergekit", "ties", MANY, density=0.4)
    assert near(found, mergekit["many"], MANY, len(MANY))


def test_ties_is_mergekits_between_bfloat16_models_that_it_merges_in_float32(mergekit):
    base = BFLOAT_BASE.float()
    deltas = BFLOAT_MODELS.float() - base
    settings = {"weight": WEIGHTS["unequal"][:3], "density": between_magnitudes(deltas, 0.4)}
    found = (base + ours("mergekit", "ties", deltas, **settings)).bfloat16()
    assert torch.equal(found, mergekit["bfloat16"])


def same_but_for_equal_magnitudes(found: Tensor, expected: Tensor, vector: Tensor) -> bool:
    """Whether two trims of a vector differ only in which of the smallest magnitudes they keep."""
    least = expected.abs()[expected != 0].min()
    larger = vector.abs() > least
    return (
        torch.equal(found[larger], expected[larger])
        and torch.equal(found[larger], vector[larger])
        and int((found.abs() == least).sum()) == int((expected.abs() == least).sum())
        and bool((found == 0).logical_or(found == vector).all())
    )


def test_as_many_of_equal_magnitudes_stay_as_in_mergekit(mergekit):
    vectors = coarse(1, 2000)
    found = ours("mergekit", "ties", vectors, density=0.3)
    assert int((found != 0).sum()) == 600
    assert same_but_for_equal_magnitudes(found, mergekit["level"], vectors[0])


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("normalize", [True, False])
def test_average_is_mergekits_linear(mergekit, weights, normalize):
    weight = torch.tensor(WEIGHTS[weights][:3])
    found = ours("mergekit", "average", DELTAS, weight=weight, normalize=normalize)
    expected = mergekit[f"linear {'' if normalize else 'sum '}{weights}"]
    divisor = weight.sum() if normalize else 1.0
    # it rounds w·θ + r once and divides at the end, we round w/Σw, products and sums
    assert near(found, expected, DELTAS * weight[:, None, None] / divisor, 8)


@pytest.mark.parametrize("t", SHARES)
@pytest.mark.parametrize("pair", PAIRS)
def test_slerp_is_mergekits(mergekit, pair, t):
    found = ours("mergekit", "slerp", PAIRS[pair], t=t)
    # its angle is of float32 norms and products, ours of float64 ones
    assert near(found, mergekit[f"slerp {pair} {t}"], PAIRS[pair], 16)


def test_passthrough_is_mergekits(mergekit):
    assert torch.equal(ours("mergekit", "passthrough", DELTAS[:1], scale=0.3), mergekit["scaled"])


def drawn(deltas: Tensor, density: float) -> Tensor:
    """Uniform numbers that drop what a peer drops after the same seed: not its own draws."""
    torch.manual_seed(0)
    stays = torch.stack([torch.bernoulli(torch.full_like(delta, density)) for delta in deltas])
    return torch.where(stays > 0, density / 2, (1 + density) / 2)


def test_dare_ties_divides_by_negative_weights_where_mergekits_does(mergekit):
    given = DARE | {"weight": [1.0, -0.99, -0.4], "combine": "signed_mean"}
    found = ours("mergekit", "dare_ties", DELTAS, uniform=drawn(DELTAS, 0.4), **given)
    total = ours(
        "mergekit", "dare_ties", DELTAS, uniform=drawn(DELTAS, 0.4), **given | {"combine": "sum"}
    )
    # the norms as below; what divides is 0.01 at the least, a difference of two weights
    bound = 32 * EPS * (found.abs() + 100 * DELTAS.abs().sum(dim=0) / 0.4)
    expected = mergekit["dare ties, taken away"]
    assert bool(((found - expected).abs() <= bound).all())
    assert bool((found.sign() != total.sign()).any())  # turned round by Σw < 0


@pytest.mark.parametrize(
    ("name", "method", "changes"),
    [
        ("dare", "dare_linear", {}),
        ("dare, not rescaled", "dare_linear", {"rescale": "none"}),
        ("dare ties", "dare_ties", {}),
    ],
)
def test_dare_is_mergekits_with_its_draws(mergekit, name, method, changes):
    found = ours("mergekit", method, DELTAS, uniform=drawn(DELTAS, 0.4), **DARE, **changes)
    weight = torch.tensor(DARE["weight"])[:, None, None]
    # the norms that it rescales by are float32 sums of 600 entries, in blocks
    assert near(found, mergekit[name], DELTAS * weight / 0.4, 16)


# PEFT, from our own environment

VOTES = {"total": "sum", "frequency": "count"}
BY_PEFT = cases(weights=tuple(WEIGHTS), counted=True)


def peft(function: str, deltas: Tensor, weight: list[float], *arguments) -> Tensor:
    from peft.utils import merge_utils

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a density of 1 prunes nothing
        return getattr(merge_utils, function)([*deltas], torch.tensor(weight), *arguments)


@pytest.mark.parametrize("method", VOTES)
@over(BY_PEFT)
def test_ties_is_pefts(case, method):
    expected = peft("ties", case.deltas, case.weight, case.density, method)
    found = ours(
        "peft", "ties", case.deltas, weight=case.weight, density=case.density, vote=VOTES[method]
    )
    assert torch.equal(found, expected)


def test_ties_elects_as_peft_does_by_default():
    settings = {"weight": WEIGHTS["negative"][:3], "density": 0.4}
    found = ours("peft", "ties", DELTAS, **settings)
    assert torch.equal(found, peft("ties", DELTAS, *settings.values()))


def test_as_many_of_equal_magnitudes_stay_as_in_peft():
    vectors = coarse(1, 2000)
    found, expected = ours("peft", "ties", vectors, density=0.3), peft("ties", vectors, [1.0], 0.3)
    assert int((found != 0).sum()) == 600
    assert same_but_for_equal_magnitudes(found, expected, vectors[0])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_task_arithmetic_is_pefts(weights):
    weight = WEIGHTS[weights][:3]
    found = ours("peft", "task_arithmetic", DELTAS, weight=weight)
    assert torch.equal(found, peft("task_arithmetic", DELTAS, weight))


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_dare_is_pefts_with_its_draws(method, weights):
    weight = WEIGHTS[weights][:3]
    uniform = drawn(DELTAS, 0.4)
    torch.manual_seed(0)
    expected = peft(method, DELTAS, weight, 0.4)
    found = ours("peft", method, DELTAS, weight=weight, density=0.4, uniform=uniform)
    assert torch.equal(found, expected)


# FusionBench

BY_FUSION_BENCH = {
    name: case for name, case in cases(counted=False).items() if case.density < 1  # it fails at 1
}  # fmt: skip
COMBINED = {"sum": "sum", "mean": "mean"}
SIZES = [500, 1, 99]


@pytest.fixture(scope="module")
def fusion_bench(peers, tmp_path_factory) -> dict[str, Tensor]:
    questions = {
        f"{name}, {combined}": Question(
            "ties",
            {"deltas": case.deltas},
            # as a percentage, which is what it takes numbers above 1 for
            {"threshold": 100 * case.density, "merge_func": combined},
        )
        for name, case in BY_FUSION_BENCH.items()
        for combined in COMBINED
    }
    models = torch.stack([BASE, *(BASE + DELTAS)]).flatten(1)
    questions["default"] = Question("ties_by_default", {"models": models}, {"sizes": SIZES})
    return peers.ask("ask_fusion_bench.py", questions, tmp_path_factory.mktemp("fusion_bench"))


@pytest.mark.parametrize("combined", COMBINED)
@over(BY_FUSION_BENCH)
def test_ties_is_fusion_benchs(fusion_bench, case, combined):
    found = ours(
        "fusion_bench", "ties", case.deltas,
        density=100 * case.density / 100, scale=1.0, combine=COMBINED[combined],
    )  # fmt: skip
    assert torch.equal(found, fusion_bench[f"{case}, {combined}"])


def test_ties_has_fusion_benchs_defaults(fusion_bench):
    base = BASE.flatten()
    found = base + ours("fusion_bench", "ties", (BASE + DELTAS).flatten(1) - base)
    assert torch.equal(found, fusion_bench["default"])


# sd-mecha

BY_SD_MECHA = cases(counted=False)
SD_MECHA_VOTES = {False: "count", True: "sum"}


@pytest.fixture(scope="module")
def sd_mecha(peers, tmp_path_factory) -> dict[str, Tensor]:
    questions = {
        f"{name}, {vote}": Question(
            "ties", {"deltas": case.deltas}, {"k": case.density, "vote_sgn": vote}
        )
        for name, case in BY_SD_MECHA.items()
        for vote in SD_MECHA_VOTES
    }
    questions["default"] = Question("ties", {"deltas": DELTAS})
    return peers.ask("ask_sd_mecha.py", questions, tmp_path_factory.mktemp("sd_mecha"))


@pytest.mark.parametrize("vote", SD_MECHA_VOTES)
@over(BY_SD_MECHA)
def test_ties_is_sd_mechas(sd_mecha, case, vote):
    settings = {"density": case.density, "vote": SD_MECHA_VOTES[vote]}
    assert torch.equal(
        ours("sd_mecha", "ties", case.deltas, **settings), sd_mecha[f"{case}, {vote}"]
    )


def test_ties_has_sd_mechas_defaults(sd_mecha):
    assert torch.equal(ours("sd_mecha", "ties", DELTAS), sd_mecha["default"])
