"""Predictors of whole models, against dense products written otherwise."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage import vectors
from alliage.checkpoints.names import kind_of, layer_of
from alliage.errors import AlliageError, UsageError
from alliage.geometry.forecasting import predicting
from alliage.geometry.forecasting.forecasting import forecast_from_weights
from alliage.geometry.forecasting.predicting import predict

PAIR = ("sentiment-lora", "topics-lora")


def _open(family, names):
    return [vectors.open(family / name, base=family / "base", name=name) for name in names]


def _dense(found, kinds, method="average"):
    """Everything from whole matrices in numpy."""
    one, two = found
    sums = np.zeros(9)
    for name in one.shapes:
        if layer_of(name) is None or len(one.shapes[name]) < 2 or kind_of(name) not in kinds:
            continue
        own, other = (vector.delta(name).double().numpy() for vector in (one, two))
        merged = (own + other) / 2
        if method == "factor_average":
            module = name.removesuffix(".weight")
            first, second = one.factors(module), two.factors(module)
            merged = (first.scale / 4 * (first.B + second.B) @ (first.A + second.A)).numpy()
        moved = merged - own
        sums += [
            (moved**2).sum(), (own**2).sum(), (merged**2).sum(), (merged * own).sum(),
            ((own.T @ moved) ** 2).sum(), ((own.T @ own) ** 2).sum(),
            ((moved @ own.T) ** 2).sum(), ((own @ own.T) ** 2).sum(),
            (one.base.read(name).double().numpy() ** 2).sum(),
        ]  # fmt: skip
    moved, own, merged, kept, out, out_own, into, into_own, base = sums
    return {
        "distance": math.sqrt(moved / own), "output": math.sqrt(out / out_own),
        "input": math.sqrt(into / into_own), "lost": 1 - kept / own,
        "turned": 1 - kept / math.sqrt(own * merged), "size": math.log(math.sqrt(own / base)),
    }  # fmt: skip


@pytest.mark.parametrize("method", ["average", "factor_average"])
def test_adapters_by_their_factors(family, method) -> None:
    found = _open(family, PAIR)
    values = predict(found, [PAIR], method)[PAIR, PAIR[0]]
    for group, kinds in (("all", {"query", "value"}), ("query", {"query"})):
        for name, expected in _dense(found, kinds, method).items():
            assert values[f"{group}.{name}"] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_full_models_by_all_their_directions(family, monkeypatch) -> None:
    monkeypatch.setattr(predicting, "DENSE_RANK", 10_000)
    names = ("sentiment", "topics")
    found = _open(family, names)
    values = predict(found, [names])[names, "sentiment"]
    expected = _dense(found, {"query", "key", "value", "output", "mlp"})
    for name, value in expected.items():
        assert values[f"all.{name}"] == pytest.approx(value, rel=1e-4)


def test_equal_models_lose_nothing_and_an_untuned_one_has_no_predictors(family) -> None:
    same = [
        vectors.open(family / "sentiment", base=family / "base", name=name) for name in ("a", "b")
    ]
    values = predict(same, [("a", "b")])
    assert values[("a", "b"), "a"]["all.lost"] == pytest.approx(0.0, abs=1e-6)
    assert values[("a", "b"), "a"]["all.distance"] == pytest.approx(0.0, abs=1e-6)
    untuned = vectors.open(family / "base", base=family / "base", name="base")
    found = predict([untuned, same[0]], [("base", "a")])
    assert math.isnan(found[("base", "a"), "base"]["all.lost"])
    forecast = forecast_from_weights([untuned, same[0]], ["average"])
    refused = next(each for each in forecast.expected if each.task == "base").refused
    assert any("not defined" in reason for reason in refused)


def test_equal_models_are_forecast_to_lose_nothing(family) -> None:
    same = [
        vectors.open(family / "sentiment", base=family / "base", name=name) for name in ("a", "b")
    ]
    found = forecast_from_weights(same, ["average"])
    assert [(each.points, each.low, each.high) for each in found.expected] == [(0, 0, 0)] * 2
    assert "a and b are equal: nothing is lost" in found.findings()[0]


def test_same_values_whatever_the_threads(family) -> None:
    found = _open(family, PAIR)
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runs.append(predict(found, [PAIR]))
    finally:
        torch.set_num_threads(before)
    assert runs[0] == runs[1]


def test_nan_in_weights_names_the_file(family, tmp_path) -> None:
    shutil.copytree(family / "sentiment", tmp_path / "bad")
    file = tmp_path / "bad" / "model.safetensors"
    tensors = load_file(file)
    tensors["bert.encoder.layer.0.attention.self.query.weight"][0, 0] = math.nan
    save_file(tensors, file, {"format": "pt"})
    bad = vectors.open(tmp_path / "bad", base=family / "base", name="bad")
    with pytest.raises(AlliageError, match=r"query.weight: NaN or infinity"):
        predict([bad, *_open(family, ["topics"])], [("bad", "topics")])


def test_adapters_beside_full_models_are_refused_in_words(family) -> None:
    found = forecast_from_weights(_open(family, ["sentiment", "topics-lora"]))
    assert found.refused
    assert "nothing was learned of merging LowRankVector and TaskVector" in found.findings()[0]


def test_one_model_is_refused(family) -> None:
    with pytest.raises(UsageError, match="two or more"):
        forecast_from_weights(_open(family, ["sentiment"]))
