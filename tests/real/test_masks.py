"""Masks and given signs against FusionBench 0.2.33.

Answers are equal bit by bit but for scales, which FusionBench adds up in float32 and as means of
tensors: the same ratios where all tensors have one size. Sums of more than four models are rounded
in another order. It leaves out of TALL masks what is
exactly at the limit, and gives the negative side what has no sign.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage.merging import ties
from alliage.merging.methods.consensus import consensus, consensus_ties, selected, tall_masks
from alliage.merging.methods.emr import agreeing, emr
from tests.real.peers import Question
from tests.real.peers.cases import cancelling, coarse, draw

pytestmark = pytest.mark.real


def fine(models: int, seed: int) -> torch.Tensor:
    """Random, but on a grid, so that nothing is rounded when it is added to `BASE`."""
    return (draw(models, 2000, seed=seed) * 2**18).round() / 2**18


BASE = draw(2000, seed=5).round()
INPUTS = {
    "random": fine(3, seed=0),
    "many": fine(8, seed=1),
    "two": fine(2, seed=2),
    "one": fine(1, seed=3),
    "coarse": coarse(4, 2000),
    "cancelling": cancelling(1),
}
HALVES, UNEQUAL = [1000, 1000], [1990, 10]
STRICTNESS = (0.2, 0.4, 0.6, 1.0)
SIGNS = draw(2000, seed=9).sign()


@pytest.fixture(scope="module")
def fusion_bench(peers, tmp_path_factory):
    questions = {}
    for name, deltas in INPUTS.items():
        given = {"deltas": deltas}
        for what in ("unified", "masks", "scales"):
            questions[f"{what} {name}"] = Question(what, given, {"sizes": HALVES})
        questions[f"scales apart {name}"] = Question("scales", given, {"sizes": UNEQUAL})
        questions[f"rebuilt {name}"] = Question("rebuilt", {**given, "base": BASE})
        for limit in STRICTNESS:
            questions[f"tall {limit} {name}"] = Question("tall_masks", given, {"strictness": limit})
            for agree in (0, 1, 2):
                questions[f"consensus {limit} {agree} {name}"] = Question(
                    "consensus", given, {"strictness": limit, "agree": agree}
                )
        for agree in (1, 2):
            questions[f"of ties {agree} {name}"] = Question(
                "consensus_of_ties", given, {"percent": 20, "strictness": 0.4, "agree": agree}
            )
        for percent in (20, 60):
            questions[f"signs {percent} {name}"] = Question(
                "ties_by_signs", {**given, "signs": SIGNS}, {"percent": percent}
            )
            questions[f"no election {percent} {name}"] = Question(
                "ties_without_election", given, {"percent": percent}
            )
    return peers.ask("ask_masks.py", questions, tmp_path_factory.mktemp("fusion_bench"))


over_inputs = pytest.mark.parametrize("name", INPUTS)


@over_inputs
def test_emr_is_theirs(fusion_bench, name):
    deltas = INPUTS[name]
    assert torch.equal(emr(deltas), fusion_bench[f"unified {name}"])
    assert torch.equal(agreeing(deltas, emr(deltas)), fusion_bench[f"masks {name}"])


@over_inputs
def test_saved_masks_and_rebuilt_models_are_theirs(fusion_bench, name, tmp_path):
    """Through files, in tensors of one size."""
    deltas, letters = INPUTS[name], "abcdefgh"[: len(INPUTS[name])]
    models = {"base": BASE, **dict(zip(letters, BASE + deltas, strict=True))}
    for folder, values in models.items():
        (tmp_path / folder).mkdir()
        halves = dict(zip(("p0", "p1"), values.split(HALVES), strict=True))
        save_file(halves, tmp_path / folder / "model.safetensors")
    refs = [tmp_path / letter for letter in letters]
    alliage.merge("emr", base=tmp_path / "base", models=refs, out=tmp_path / "out")
    for number, letter in enumerate(letters):
        stored = load_file(tmp_path / "out" / "tasks" / f"{letter}.safetensors")
        scale = fusion_bench[f"scales {name}"][number]
        torch.testing.assert_close(stored["alliage.scale"][0].float(), scale, rtol=1e-5, atol=0)
        again = alliage.apply(tmp_path / "out", task=letter, out=tmp_path / f"again-{letter}").out
        parts = load_file(again / "model.safetensors")
        theirs = fusion_bench[f"rebuilt {name}"][number]
        found = torch.cat([parts["p0"], parts["p1"]])
        torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)


def test_their_scales_are_means_of_tensors(fusion_bench):
    """Which is why they are theirs only where tensors have one size."""
    deltas = INPUTS["random"]
    merged = emr(deltas)
    masks = agreeing(deltas, merged)
    sizes = [slice(0, 1990), slice(1990, 2000)]
    theirs = sum(deltas[:, part].abs().mean(dim=1) for part in sizes)
    theirs = theirs / sum((merged * masks)[:, part].abs().mean(dim=1) for part in sizes)
    torch.testing.assert_close(fusion_bench["scales apart random"], theirs)
    papers = deltas.abs().sum(dim=1) / (merged * masks).abs().sum(dim=1)
    torch.testing.assert_close(fusion_bench["scales random"], papers)
    assert (theirs - papers).abs().max() > 0.01


@over_inputs
@pytest.mark.parametrize("limit", STRICTNESS)
def test_tall_masks_are_theirs_but_at_the_limit(fusion_bench, name, limit):
    deltas = INPUTS[name]
    total = tall_masks(deltas)
    ours, theirs = selected(deltas, total, limit), fusion_bench[f"tall {limit} {name}"]
    at_limit = deltas.abs() == (total - deltas).abs() * limit
    assert torch.equal(ours & ~at_limit, theirs)
    assert ours[at_limit].all()
    if name == "coarse":
        assert at_limit.any()


@pytest.mark.parametrize("name", ["random", "many", "two"])
@pytest.mark.parametrize("limit", STRICTNESS)
def test_consensus_is_theirs(fusion_bench, name, limit):
    deltas = INPUTS[name]
    for agree in (0, 1, 2):
        found = consensus(deltas, strictness=limit, agree=agree, scale=1.0)
        kept = fusion_bench[f"consensus {limit} {agree} {name}"]
        assert torch.equal(found, tall_masks(deltas).where(kept, 0.0))


@pytest.mark.parametrize("name", ["random", "two"])
def test_consensus_of_ties_is_theirs(fusion_bench, name):
    for agree in (1, 2):
        found = consensus_ties(INPUTS[name], strictness=0.4, agree=agree, scale=1.0)
        assert torch.equal(found, fusion_bench[f"of ties {agree} {name}"])
        assert found.any()


def same(found: torch.Tensor, theirs: torch.Tensor, models: int) -> bool:
    """Whether all bits are; of more than four models PyTorch's sums have another order."""
    if models <= 4:
        return torch.equal(found, theirs)
    zeros = torch.equal(found == 0, theirs == 0)
    return zeros and torch.allclose(found, theirs, rtol=0, atol=1e-6)


@over_inputs
@pytest.mark.parametrize("percent", [20, 60])
def test_ties_by_given_signs_is_theirs(fusion_bench, name, percent):
    deltas = INPUTS[name]
    found = ties(deltas, density=percent / 100, signs=SIGNS)
    theirs = fusion_bench[f"signs {percent} {name}"]
    assert same(found, theirs, len(deltas))


@over_inputs
@pytest.mark.parametrize("percent", [20, 60])
def test_ties_without_an_election_is_theirs(fusion_bench, name, percent):
    deltas = INPUTS[name]
    found = ties(deltas, density=percent / 100, vote="none")
    assert same(found, fusion_bench[f"no election {percent} {name}"], len(deltas))
