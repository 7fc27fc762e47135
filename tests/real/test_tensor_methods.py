"""Methods on whole matrices and on spheres against the real functions of other projects.

Read and run were mergekit 0.1.5, FusionBench 0.2.33 and sd-mecha 1.1.8. FusionBench and sd-mecha
are asked in float64, as Alliage takes it there by itself; answers are equal but for the rounding to
float32, and for mergekit's float32. Where they differ, and are not asked:

FusionBench  completes directions that are not there (of low rank, or the same in two models) by
             whatever its SVD returns; merges only what has two dimensions; TSV-M with more models
             than ranks is zero there, and Iso-CTS fails where it rounds up to more directions than
             there are.
mergekit     takes products of norms below 1e-6 as 1e-6 in Model Stock; refuses Multi-SLERP of more
             than two tensors that cancel; its NuSLERP is not stable near opposite directions.
sd-mecha     takes cosines of neighbours alone in Model Stock, of rows.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alliage.merging import get_method
from alliage.merging.recipe.dialects import preset
from tests.real.peers import Question
from tests.real.peers.cases import draw

pytestmark = pytest.mark.real

MATRICES = {
    "tall": draw(3, 30, 18),
    "wide": draw(4, 15, 31, seed=1),
    "square": draw(2, 24, 24, seed=2),
    "many": draw(8, 20, 20, seed=3),
    "vectors": draw(3, 50, seed=4),
    "alone": draw(1, 12, 17, seed=5),
}
SMALL = {name: 0.01 * tensors for name, tensors in MATRICES.items()}
COMMON = (0.2, 0.5, 0.8)
CALIBRATED = {"by default": (0.3, 0.1), "as strict as can be": (1.0, 1.0)}
WEIGHTS = (1.0, 0.5, 2.0, 0.7)
PAIRS = {"matrix": draw(2, 20, 15, seed=6), "near": 3 + 0.1 * draw(2, 20, 15, seed=7)}
BASE = draw(20, 15, seed=8)
ALONG = {
    "whole": {},
    "rows": {"flatten": False},
    "columns": {"flatten": False, "columns": True},
}
THEIRS = {"flatten": "nuslerp_flatten", "columns": "nuslerp_row_wise"}
SPHERES = {
    "apart": draw(3, 20, 15, seed=9),
    "near": BASE + 0.05 * draw(4, 20, 15, seed=10),
    "pair": draw(2, 20, 15, seed=11),
}
STEPS = {name: 0.3 * BASE + tensors for name, tensors in SPHERES.items()}
STEPS["opposed"] = torch.stack([STEPS["pair"][0], 0.5 * STEPS["pair"][1] - 0.6 * STEPS["pair"][0]])


def near(found: Tensor, expected: Tensor) -> None:
    """Equal but for roundings of numbers as large as the largest one, more of them in float32."""
    share = 1e-6 if expected.dtype == torch.float64 else 1e-5
    bound = share * float(expected.abs().max())
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=0, atol=bound)


@pytest.fixture(scope="module")
def fusion_bench(peers, tmp_path_factory) -> dict[str, Tensor]:
    questions = {}
    for name, deltas in MATRICES.items():
        tensors = {"deltas": deltas.double()}
        for method in ("tsv_m", "iso_c"):
            questions[f"{method} {name}"] = Question(method, tensors)
        for common in COMMON:
            arguments = {"common_space_fraction": common}
            questions[f"iso_cts {name} {common}"] = Question("iso_cts", tensors, arguments)
        if name == "vectors":
            continue
        for kind, (scale, alpha) in CALIBRATED.items():
            arguments = {"scale": scale, "alpha": alpha}
            questions[f"svc {name} {kind}"] = Question("svc", tensors, arguments)
    for name, deltas in SMALL.items():
        for steps in (1, 60):
            arguments = {"iter_num": steps}
            tensors = {"deltas": deltas.double()}
            questions[f"wudi {name} {steps}"] = Question("wudi", tensors, arguments)
    folder = tmp_path_factory.mktemp("fusion_bench")
    return peers.ask("ask_fusion_bench_tensors.py", questions, folder)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("method", ["tsv_m", "iso_c"])
def test_tsv_m_and_iso_c_are_fusion_benchs(fusion_bench, method, name):
    near(get_method(method)(MATRICES[name]), fusion_bench[f"{method} {name}"])


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("common", COMMON)
def test_iso_cts_is_fusion_benchs(fusion_bench, name, common):
    near(
        get_method("iso_cts")(MATRICES[name], common=common),
        fusion_bench[f"iso_cts {name} {common}"],
    )


@pytest.mark.parametrize("name", [name for name in MATRICES if name != "vectors"])
@pytest.mark.parametrize("kind", CALIBRATED)
def test_svc_is_fusion_benchs(fusion_bench, name, kind):
    scale, alpha = CALIBRATED[kind]
    found = get_method("svc")(MATRICES[name], scale=scale, alpha=alpha)
    near(found, fusion_bench[f"svc {name} {kind}"])


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("steps", [1, 60])
def test_wudi_is_fusion_benchs(fusion_bench, name, steps):
    expected = fusion_bench[f"wudi {name} {steps}"]
    near(get_method("wudi")(SMALL[name], steps=steps), expected)
    if name not in ("alone", "vectors"):  # which stay where they begin
        start = SMALL[name].sum(dim=0)
        assert float((expected - start).abs().max()) > 0.9e-5 * min(steps, 20)


def test_wudi_has_fusion_benchs_steps():
    assert preset("fusion_bench", "wudi") == {"steps": 400}


@pytest.fixture(scope="module")
def mergekit(peers, tmp_path_factory) -> dict[str, Tensor]:
    questions = {}
    for name, pair in PAIRS.items():
        for along, arguments in ALONG.items():
            both = {"method": "nuslerp", "weight": [3.0, 1.0]}
            both |= {THEIRS[name]: value for name, value in arguments.items()}
            questions[f"nuslerp {name} {along}"] = Question("merge", {"models": pair}, both)
            on_base = {"models": BASE + pair, "base": BASE}
            questions[f"nuslerp_delta {name} {along}"] = Question("merge", on_base, both)
    for name, models in SPHERES.items():
        for normalize in (True, False):
            arguments = {
                "method": "multislerp",
                "weight": list(WEIGHTS[: len(models)]),
                "normalize_weights": normalize,
            }
            key = f"{name} {normalize}"
            questions[f"multislerp {key}"] = Question("merge", {"models": models}, arguments)
            on_base = {"models": BASE + models, "base": BASE}
            questions[f"multislerp_delta {key}"] = Question("merge", on_base, arguments)
        questions[f"karcher {name}"] = Question("merge", {"models": models}, {"method": "karcher"})
        with_base = {"models": models, "base": BASE}
        questions[f"karcher with base {name}"] = Question("merge", with_base, {"method": "karcher"})
    for name, deltas in STEPS.items():
        for filter_wise in (False, True):
            arguments = {"method": "model_stock", "filter_wise": filter_wise}
            tensors = {"models": BASE + deltas, "base": BASE}
            questions[f"model_stock {name} {filter_wise}"] = Question("merge", tensors, arguments)
    return peers.ask("ask_mergekit.py", questions, tmp_path_factory.mktemp("mergekit"))


def seen_from_base(models: Tensor) -> Tensor:
    """What is left of deltas once models are made of them."""
    return (BASE + models) - BASE


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("along", ALONG)
def test_nuslerp_is_mergekits(mergekit, name, along):
    given = {"weight": [3.0, 1.0], **ALONG[along]}
    near(get_method("nuslerp")(PAIRS[name], **given), mergekit[f"nuslerp {name} {along}"])
    found = BASE + get_method("nuslerp_delta")(seen_from_base(PAIRS[name]), **given)
    near(found, mergekit[f"nuslerp_delta {name} {along}"])


@pytest.mark.parametrize("name", SPHERES)
@pytest.mark.parametrize("normalize", [True, False])
def test_multislerp_is_mergekits(mergekit, name, normalize):
    models = SPHERES[name]
    given = {"weight": list(WEIGHTS[: len(models)]), "normalize": normalize}
    near(get_method("multislerp")(models, **given), mergekit[f"multislerp {name} {normalize}"])
    found = BASE + get_method("multislerp_delta")(seen_from_base(models), **given)
    near(found, mergekit[f"multislerp_delta {name} {normalize}"])


@pytest.mark.parametrize("name", SPHERES)
def test_karcher_is_mergekits(mergekit, name):
    near(get_method("karcher")(SPHERES[name]), mergekit[f"karcher {name}"])
    with_base = torch.cat([BASE[None], SPHERES[name]])  # a model like the others
    near(get_method("karcher")(with_base), mergekit[f"karcher with base {name}"])


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("filter_wise", [False, True])
def test_model_stock_is_mergekits(mergekit, name, filter_wise):
    given = {"filter_wise": filter_wise, **preset("mergekit", "model_stock")}
    found = get_method("model_stock")(seen_from_base(STEPS[name]), **given)
    near(BASE + found, mergekit[f"model_stock {name} {filter_wise}"])


@pytest.mark.parametrize("filter_wise", [False, True])
def test_model_stock_goes_backwards_in_mergekit_where_ours_stays(mergekit, filter_wise):
    steps = seen_from_base(STEPS["opposed"])
    theirs = mergekit[f"model_stock opposed {filter_wise}"] - BASE
    assert float((theirs * steps.mean(dim=0)).sum()) < 0
    found = get_method("model_stock")(steps, filter_wise=filter_wise)
    assert float((found * steps.mean(dim=0)).sum()) >= 0


@pytest.fixture(scope="module")
def sd_mecha(peers, tmp_path_factory) -> dict[str, Tensor]:
    median = {"method": "geometric_median", "space": "weight"}
    questions = {
        name: Question("merge", {"tensors": tensors}, median) for name, tensors in SPHERES.items()
    }
    stock = {"method": "model_stock", "space": "delta"}
    questions["stock"] = Question("merge", {"tensors": STEPS["pair"]}, stock)
    questions["stock, opposed"] = Question("merge", {"tensors": STEPS["opposed"]}, stock)
    return peers.ask("ask_sd_mecha_tensors.py", questions, tmp_path_factory.mktemp("sd_mecha"))


@pytest.mark.parametrize("name", SPHERES)
def test_the_geometric_median_is_sd_mechas(sd_mecha, name):
    arguments = preset("sd_mecha", "geometric_median")
    assert arguments == {"over": "tensor"}
    near(get_method("geometric_median")(SPHERES[name], **arguments), sd_mecha[name])


def test_model_stock_of_two_models_by_rows_is_sd_mechas(sd_mecha):
    given = {"filter_wise": True, **preset("sd_mecha", "model_stock")}
    near(get_method("model_stock")(STEPS["pair"], **given), sd_mecha["stock"])
    opposed = get_method("model_stock")(STEPS["opposed"], **given)
    near(opposed, sd_mecha["stock, opposed"])
