"""Quantities of single models in surveys: directions, energies and spectra."""

import math

import numpy as np
import pytest

from tests.geometry.surveying.test_comparing import QUERY, dense_delta


def test_dense_directions_by_energy_say_what_they_hold(compare, family):
    found = compare(
        "sentiment", "topics", metrics=["core_energy"], energy=0.6, modules="q", spectra=True
    )
    delta = dense_delta(family, "sentiment", f"{QUERY}.weight")
    s = np.linalg.svd(delta, compute_uv=False)
    shares = (s**2).cumsum() / (s**2).sum()
    held = found.spectra.sel(task="sentiment", module=QUERY)
    k = int((shares < 0.6).sum()) + 1
    assert int(held["singular_values"].notnull().sum()) == k
    assert float(held["rank"]) == len(s)
    assert float(held["energy"]) == pytest.approx(shares[k - 1], rel=1e-5)
    assert float(held["stable_rank"]) == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-5)
    assert float(held["norm"]) == pytest.approx(np.linalg.norm(s), rel=1e-5)
    assert "that hold 0.6 of ‖ΔW‖²; they hold 0.6" in found.notes[-1]


def test_energy_cuts_factors_beside_dense_updates_too(compare, family):
    found = compare(
        "topics", "topics-lora", metrics=["geodesic"], modules="q", energy=0.5, spectra=True
    )
    s = np.linalg.svd(dense_delta(family, "topics-lora", f"{QUERY}.weight"), compute_uv=False)
    assert s[0] ** 2 > 0.5 * (s**2).sum()  # one direction of two holds enough
    own = found.spectra.sel(task="topics-lora", module=QUERY)
    assert int(own["singular_values"].notnull().sum()) == 1
    assert float(own["energy"]) == pytest.approx(s[0] ** 2 / (s**2).sum(), rel=1e-5)


def test_spectral_distances_that_are_not_exact_say_so(compare, monkeypatch):
    assert not compare("sentiment", "topics", metrics=["l2_spectral"], modules="q").notes
    monkeypatch.setattr("alliage.geometry.surveying.notes.EXACT_SIDE", 8)
    (note,) = compare("sentiment", "topics", metrics=["l2_spectral"], modules="q").notes
    assert "never too large, and too small by more than 2 %" in note


def test_spectra_of_dense_models_are_of_all_singular_values(compare, family):
    """However few directions stand for the update; they are shown only when asked for."""
    found = compare("sentiment", "topics", rank=2, modules="q", spectra=True)
    s = np.linalg.svd(dense_delta(family, "topics", f"{QUERY}.weight"), compute_uv=False)
    p = s / s.sum()
    entropy = -(p * np.log(p)).sum()
    own = found.spectra.sel(task="topics", module=QUERY)
    for name, value in {
        "rank": 16, "effective_rank": math.exp(entropy), "entropy": entropy / math.log(16),
        "stable_rank": (s**2).sum() / s[0] ** 2, "energy": (s[:2] ** 2).sum() / (s**2).sum(),
    }.items():  # fmt: skip
        assert float(own[name]) == pytest.approx(value, rel=1e-5), name
    assert not compare("sentiment", "topics").spectra


def test_spectra_that_are_not_known_whole_are_none(compare, monkeypatch):
    """Beyond the exact side, of the dense model; the factors of the other are known whole."""
    for module in ("leading", "surveying.notes"):
        monkeypatch.setattr(f"alliage.geometry.{module}.EXACT_SIDE", 8)
    found = compare("topics", "topics-lora", metrics=["l2"], modules="q", rank=2, spectra=True)
    for name in ("rank", "effective_rank", "stable_rank", "entropy"):
        assert found.spectra[name].sel(task="topics").isnull().all()
        assert found.spectra[name].sel(task="topics-lora").notnull().all()
    assert found.spectra["singular_values"].notnull().all()
    assert "not known of dense updates with both sides above 8: encoder" in found.notes[-1]


def test_spectra_of_models(compare, family):
    found = compare("sentiment-lora", "topics-lora", metrics=["l2"], spectra=True).spectra
    s = np.linalg.svd(dense_delta(family, "topics-lora", f"{QUERY}.weight"), compute_uv=False)[:2]
    own = found.sel(task="topics-lora", module=QUERY)
    p = s / s.sum()
    entropy = -(p * np.log(p)).sum()
    assert own["singular_values"].dims == ("direction",)
    np.testing.assert_allclose(own["singular_values"], s, rtol=1e-5)
    for name, value in {
        "rank": 2, "norm": np.linalg.norm(s), "entropy": entropy / math.log(2),
        "effective_rank": math.exp(entropy), "stable_rank": (s**2).sum() / s[0] ** 2,
        "energy": 1.0, "error": 0.0,
    }.items():  # fmt: skip
        assert float(own[name]) == pytest.approx(value, rel=1e-5)
    assert not compare("sentiment-lora", "topics-lora", metrics=["l2"]).spectra
