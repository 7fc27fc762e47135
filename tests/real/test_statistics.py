"""Merges by statistics: FusionBench's own functions, and real text through all of it."""

from __future__ import annotations

import pytest
import torch

import alliage
from alliage.merging import fisher, parse_recipe, plan, regmean, run
from alliage.statistics import collect_fisher, collect_regmean, collect_regmean_plus_plus
from tests.real.peers import Question
from tests.real.peers.cases import draw

pytestmark = pytest.mark.real

SIZES = [600, 25, 375]
SHARES = [0.5, 1.0, 0.25]
FISHER = {
    f"{'normalised' if normalize else 'plain'}, {floor:g}": (normalize, floor)
    for normalize in (False, True)
    for floor in (1e-12, 1e-6)
}
REGMEAN = {f"{alpha}": alpha for alpha in (0.1, 0.6, 0.9, 0.95)}


def information() -> torch.Tensor:
    """[3, 1000], of the magnitudes that real models have, another for each."""
    scales = torch.tensor([[1e-1], [1e-3], [1e-2]])
    return draw(3, 1000, seed=1).square() * scales + 1e-4


def grams(models: int, size: int) -> torch.Tensor:
    inputs = draw(models, 4 * size, size, seed=2)
    return inputs.mT @ inputs / (4 * size)


@pytest.fixture(scope="module")
def answers(peers, tmp_path_factory):
    """What FusionBench's functions return."""
    weights = draw(3, 1000)
    questions = {
        name: Question(
            "fisher",
            {"weights": weights, "information": information()},
            {"shares": SHARES, "normalize": normalize, "floor": floor, "sizes": SIZES},
        )
        for name, (normalize, floor) in FISHER.items()
    }
    for name, alpha in REGMEAN.items():
        for transposed in (False, True):
            layers = draw(3, 24, 16) if transposed else draw(3, 16, 24)
            questions[f"{name}, {transposed}"] = Question(
                "regmean",
                {"weights": layers, "grams": grams(3, 24)},
                {"alpha": alpha, "transposed": transposed},
            )
    folder = tmp_path_factory.mktemp("fusion-bench")
    return peers.ask("ask_fusion_bench_statistics.py", questions, folder)


@pytest.mark.parametrize("name", FISHER)
def test_fisher_is_fusion_benchs_where_the_floor_decides_nothing(answers, name):
    """They add the floor, we take it as the least: information here is 1e-4 or more."""
    normalize, floor = FISHER[name]
    found = fisher(
        draw(3, 1000), fisher=information(), weight=SHARES, normalize=normalize, floor=floor
    )
    bound = 1e-5 if floor < 1e-9 else 0.05
    torch.testing.assert_close(found, answers[name], rtol=bound, atol=bound)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", REGMEAN)
def test_regmean_is_fusion_benchs(answers, name, transposed):
    layers = draw(3, 24, 16).mT if transposed else draw(3, 16, 24)
    found = regmean(layers, grams=grams(3, 24), alpha=REGMEAN[name])
    expected = answers[f"{name}, {transposed}"]
    theirs = expected.mT if transposed else expected
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-5)


TASKS = ("subj", "trec")


@pytest.mark.slow
def test_on_real_text_merges_that_know_the_data_are_better(minilm, data_folder, tmp_path):
    models = []
    for name in TASKS:
        alliage.tune(
            model=minilm, task=data_folder / name, method="full", out=tmp_path / name,
            epochs=2, train_limit=400, max_length=48, warmup=0.1, learning_rate=3e-4,
        )  # fmt: skip
        models.append(tmp_path / name)
        task, folder = data_folder / name, tmp_path / name
        known = [
            collect_fisher(
                folder, task, folder / "fisher.safetensors", examples=64, labels="sampled"
            ),
            collect_regmean(folder, task, folder / "regmean.safetensors", examples=64),
        ]
        print(name, [(each.kind, round(each.seconds, 1)) for each in known], flush=True)
    records = collect_regmean_plus_plus(
        models, [data_folder / name for name in TASKS], tmp_path / "inputs", examples=64
    )
    print("regmean++", f"{records[-1].seconds:.1f} s", flush=True)
    scores = {}
    for method in ("average", "fisher", "regmean", "regmean_plus_plus"):
        entries = [{"model": str(model)} for model in models]
        if method == "regmean_plus_plus":
            for entry, record in zip(entries, records, strict=True):
                entry["statistics"] = str(record.out)
        content = {"method": method, "base": str(minilm), "models": entries}
        run(plan(parse_recipe(content), threads=2), tmp_path / method)
        found = [
            alliage.evaluate(tmp_path / method, data_folder / name, head=name)[name]
            for name in TASKS
        ]
        scores[method] = sum(each.metrics["accuracy"] for each in found) / len(found)
        print(method, [round(each.metrics["accuracy"], 4) for each in found])
    single = [
        alliage.evaluate(tmp_path / name, data_folder / name)[name].metrics["accuracy"]
        for name in TASKS
    ]
    print("single", single)
    assert scores["fisher"] > scores["average"]
    assert scores["regmean"] > scores["average"]
    assert scores["regmean_plus_plus"] > scores["average"]
