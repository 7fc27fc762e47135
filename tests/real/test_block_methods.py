"""Methods that drop, select or choose entries against the real functions of their projects.

Read and run were mergekit 0.1.5, PEFT 0.21.2 and FusionBench 0.2.33. Where equal magnitudes or
variances compete mergekit leaves open which stay, so that none are asked for here. Answers are
equal bit by bit, or the bound on rounding errors is said.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.real.peers import Question
from tests.real.peers.cases import WEIGHTS, coarse, draw
from tests.real.test_dialects import (
    BASE,
    DELTAS,
    SIZES,
    near,
    of_models,
    on_zero,
    ours,
    peft,
)

pytestmark = pytest.mark.real

WEIGHT = WEIGHTS["unequal"][:3]
SHAPES = {"matrix": DELTAS, "vector": draw(3, 200, seed=21), "one entry": draw(3, 1, seed=22)}
BANDS = [(0.5, 0.01), (0.29, 0.2), (0.9, 0.3), (0.03, 0.0), (1.0, 0.1)]
DENSITIES = [0.05, 0.4, 0.8]
# mostly unchanged, at places of each model's own
SPARSE = DELTAS * (draw(*DELTAS.shape, seed=23) > 0.8)
KEPT = {"density": 0.4, "epsilon": 0.25}
PAIR = torch.stack([BASE, BASE + 0.5 * DELTAS[0]])
LARGE = torch.stack([draw(700, 60, seed=24), draw(700, 60, seed=25)])


def of_pair(pair: Tensor, method: str, **arguments):
    question = of_models(pair[1:], method, **arguments)
    question.tensors["base"] = pair[0]
    return question


@pytest.fixture(scope="module")
def mergekit(peers, tmp_path_factory) -> dict[str, Tensor]:
    questions = {}
    for shape, deltas in SHAPES.items():
        for density, gamma in BANDS:
            for method in ("breadcrumbs", "breadcrumbs_ties"):
                name = f"{method} {shape} {density} {gamma}"
                given = {"weight": WEIGHT, "density": density, "gamma": gamma}
                questions[name] = on_zero(deltas, method, **given)
        for density in (*DENSITIES, 1.0):
            questions[f"sce {shape} {density}"] = on_zero(deltas, "sce", select_topk=density)
    given = {"weight": WEIGHT, "density": KEPT["density"], "epsilon": KEPT["epsilon"]}
    questions |= {
        "sce, tiny": on_zero(1e-4 * DELTAS, "sce", select_topk=0.5),
        "sce, partly equal": on_zero(DELTAS.where(SPARSE[0] != 0, 0.5), "sce", select_topk=0.5),
        "breadcrumbs": on_zero(DELTAS, "breadcrumbs", weight=WEIGHT),
        "breadcrumbs_ties": on_zero(DELTAS, "breadcrumbs_ties", weight=WEIGHT),
        "normalize": on_zero(
            DELTAS, "breadcrumbs_ties",
            weight=WEIGHT, density=0.5, normalize=True, **{"lambda": 0.7},
        ),
        "della_linear": on_zero(DELTAS, "della_linear", **given),
        "della_linear, not rescaled": on_zero(DELTAS, "della_linear", rescale=False, **given),
        "della": on_zero(DELTAS, "della", **given),
        "della by default": on_zero(DELTAS, "della", weight=WEIGHT),
        "ram": on_zero(SPARSE, "ram"),
        "ram, coarse": on_zero(DELTAS, "ram", epsilon=0.7),
        "ram_plus": on_zero(SPARSE, "ramplus_tl"),
        "ram_plus, bounded": on_zero(SPARSE, "ramplus_tl", r=0.5, alpha=3.0, epsilon=0.7),
        "arcee_fusion": of_pair(LARGE.double(), "arcee_fusion"),
        "arcee_fusion, vectors": of_pair(LARGE[:, 0].double(), "arcee_fusion"),
    }  # fmt: skip
    for t in (0.0, 1e-4, 0.1, 5.0):
        questions[f"nearswap {t}"] = of_pair(PAIR, "nearswap", t=t)
    return peers.ask("ask_mergekit.py", questions, tmp_path_factory.mktemp("mergekit"))


@pytest.mark.parametrize(("density", "gamma"), BANDS)
@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize("shape", SHAPES)
def test_breadcrumbs_is_mergekits(mergekit, shape, method, density, gamma):
    given = {"weight": WEIGHT, "density": density, "gamma": gamma}
    found = ours("mergekit", method, SHAPES[shape], **given)
    assert torch.equal(found, mergekit[f"{method} {shape} {density} {gamma}"])


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs_has_mergekits_defaults(mergekit, method):
    assert torch.equal(ours("mergekit", method, DELTAS, weight=WEIGHT), mergekit[method])


def test_what_mergekits_normalize_of_breadcrumbs_means_here(mergekit):
    given = {"weight": WEIGHT, "density": 0.5, "combine": "mean", "scale": 0.7}
    assert torch.equal(ours("mergekit", "breadcrumbs_ties", DELTAS, **given), mergekit["normalize"])


def drawn(deltas: Tensor, density: float, epsilon: float) -> Tensor:
    """Uniform numbers that drop what mergekit's DELLA drops after the same seed."""
    columns = deltas.shape[-1]
    ranks = torch.stack([delta.abs().argsort(dim=1).argsort(dim=1) for delta in deltas])
    chances = density - epsilon + ranks / (columns - 1) * 2 * epsilon
    torch.manual_seed(0)
    stays = torch.stack([torch.bernoulli(each) for each in chances])
    return torch.where(stays > 0, chances / 2, (1 + chances) / 2)


@pytest.mark.parametrize(
    ("name", "method", "changes"),
    [
        ("della_linear", "della_linear", {}),
        ("della_linear, not rescaled", "della_linear", {"rescale": "none"}),
        ("della", "della", {}),
    ],
)
def test_della_is_mergekits_with_its_draws(mergekit, name, method, changes):
    uniform = drawn(DELTAS, **KEPT)
    found = ours("mergekit", method, DELTAS, weight=WEIGHT, uniform=uniform, **KEPT, **changes)
    weight = torch.tensor(WEIGHT)[:, None, None]
    # the norms that it rescales by are float32 sums of 600 entries, in blocks
    assert near(found, mergekit[name], DELTAS * weight / 0.15, 16)
    assert 0.1 < (found == 0).float().mean() < 0.9


def test_della_has_mergekits_defaults(mergekit):
    found = ours("mergekit", "della", DELTAS, weight=WEIGHT)
    assert torch.equal(found, mergekit["della by default"])


@pytest.mark.parametrize("density", [*DENSITIES, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_sce_is_mergekits(mergekit, shape, density):
    found = ours("mergekit", "sce", SHAPES[shape], density=density)
    expected = mergekit[f"sce {shape} {density}"]
    # its weights are float32 means of up to 600 squares
    assert near(found, expected, SHAPES[shape], 32)
    assert torch.equal(found == 0, expected == 0)


def test_sces_weights_are_equal_below_mergekits_floor(mergekit):
    found = ours("mergekit", "sce", 1e-4 * DELTAS, density=0.5)
    assert near(found, mergekit["sce, tiny"], 1e-4 * DELTAS, 8)
    own = ours("paper", "sce", 1e-4 * DELTAS, density=0.5)
    assert not near(own, mergekit["sce, tiny"], 1e-4 * DELTAS, 1000)


def test_sce_selects_a_share_of_where_models_differ_as_mergekit(mergekit):
    deltas = DELTAS.where(SPARSE[0] != 0, 0.5)
    found = ours("mergekit", "sce", deltas, density=0.5)
    assert near(found, mergekit["sce, partly equal"], deltas, 32)
    assert int((found != 0).sum()) == int((SPARSE[0] != 0).sum()) // 2


@pytest.mark.parametrize(
    ("name", "method", "deltas", "changes"),
    [
        ("ram", "ram", SPARSE, {}),
        ("ram, coarse", "ram", DELTAS, {"epsilon": 0.7}),
        ("ram_plus", "ram_plus", SPARSE, {}),
        ("ram_plus, bounded", "ram_plus", SPARSE, {"r": 0.5, "alpha": 3.0, "epsilon": 0.7}),
    ],
)
def test_ram_is_mergekits(mergekit, name, method, deltas, changes):
    # it divides before it adds, we after
    assert near(ours("mergekit", method, deltas, **changes), mergekit[name], deltas, 4)


@pytest.mark.parametrize("t", [0.0, 1e-4, 0.1, 5.0])
def test_nearswap_is_mergekits(mergekit, t):
    # it weighs both models and adds them, we add a step to one
    assert near(ours("mergekit", "nearswap", PAIR, t=t), mergekit[f"nearswap {t}"], PAIR, 4)


@pytest.mark.parametrize(
    ("name", "pair"), [("arcee_fusion", LARGE), ("arcee_fusion, vectors", LARGE[:, 0])]
)
def test_arcee_fusion_is_mergekits_in_float64(mergekit, name, pair):
    found = ours("mergekit", "arcee_fusion", pair)
    assert torch.equal(found, mergekit[name].float())
    assert 0.01 < (found == pair[1]).float().mean() < 0.3


@pytest.mark.parametrize("density", [0.0, *DENSITIES, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_magnitude_prune_is_pefts(shape, density, weights):
    weight = WEIGHTS[weights][:3]
    found = ours("peft", "magnitude_prune", SHAPES[shape], density=density, weight=weight)
    assert torch.equal(found, peft("magnitude_prune", SHAPES[shape], weight, density))


def test_magmax_is_fusion_benchs_by_default(peers, tmp_path):
    models = {
        "apart": torch.stack([BASE, *(BASE + DELTAS)]).flatten(1),
        "coarse": torch.cat([torch.zeros(1, 600), coarse(3, 600)]),  # with equal magnitudes
    }
    questions = {
        name: Question("magmax_by_default", {"models": each}, {"sizes": SIZES})
        for name, each in models.items()
    }
    answers = peers.ask("ask_fusion_bench.py", questions, tmp_path)
    for name, each in models.items():
        found = each[0] + ours("fusion_bench", "magmax", each[1:] - each[0])
        assert torch.equal(found, answers[name]), name
