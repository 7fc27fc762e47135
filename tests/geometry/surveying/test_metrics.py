"""Every metric of a survey against its dense definition in numpy, from files to numbers."""

import itertools
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.linalg import subspace_angles

import alliage
from alliage.geometry import survey
from alliage.geometry.alignment import Decomposition
from alliage.geometry.surveying import measuring, pieces
from alliage.geometry.surveying.decomposed import Decomposed
from alliage.geometry.surveying.metrics import METRICS
from alliage.vectors import open as open_vector
from tests.geometry.surveying.test_comparing import QUERY, dense_delta

FAMILIES = {
    "dense": (("sentiment", "topics"), 5),
    "low-rank": (("sentiment-lora", "topics-lora"), 2),
    "mixed": (("sentiment-lora", "topics"), 2),
}
RADIANS = {
    "geodesic": lambda t: math.sqrt((t**2).sum()),
    "angle_sum": lambda t: t.sum(),
    "chordal": lambda t: math.sqrt((np.sin(t) ** 2).sum()),
    "projection_frobenius": lambda t: math.sqrt(2 * (np.sin(t) ** 2).sum()),
    "projection_two": lambda t: np.sin(t).max(),
    "procrustes": lambda t: 2 * math.sqrt((np.sin(t / 2) ** 2).sum()),
    "fubini_study": lambda t: math.acos(np.cos(t).prod()),
    "martin": lambda t: math.sqrt(-2 * np.log(np.cos(t)).sum()),
    "asimov": lambda t: t.max(),
    "binet_cauchy": lambda t: math.sqrt(1 - (np.cos(t) ** 2).prod()),
    "ye_lim": lambda t: math.sqrt((t**2).sum()),  # of equal dimensions
}


def cut(delta, rank):
    u, s, vT = np.linalg.svd(delta)
    k = min(rank, int((s > 1e-6 * s[0]).sum()))
    return u[:, :k], s[:k], vT[:k].T


def expected(first, second, rank, side="left"):
    """All metrics of one pair of matrices, [first in second] where that matters."""
    (u1, s1, v1), (u2, s2, v2) = cut(first, rank), cut(second, rank)
    angles = subspace_angles(u1, u2) if side == "left" else subspace_angles(v1, v2)
    core = u2.T @ first @ v2
    s12, energy = np.diag(core), (first**2).sum()
    p, q = s2 / s2.sum(), np.abs(s12) / np.abs(s12).sum()
    merged = first + second  # whole, whatever the rank
    um, sm, vm = np.linalg.svd(merged)
    left = [np.linalg.norm(merged - um[:, :k] * sm[:k] @ vm[:k]) for k in range(len(sm) + 1)]
    k = next(k for k, rest in enumerate(left) if rest <= 0.05 * np.linalg.norm(merged))
    U, V = np.hstack([u1, u2]), np.hstack([v1, v2])
    S = np.diag(np.concatenate([s1, s2]))
    tops = [np.abs(d) >= np.sort(np.abs(d).ravel())[-math.ceil(0.2 * d.size)]
            for d in (first, second)]  # fmt: skip
    return {name: formula(angles) for name, formula in RADIANS.items()} | {
        "l2": np.linalg.norm(first - second),
        "l2_spectral": np.linalg.norm(first - second, 2),
        "cosine": 1 - (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second),
        "explained_energy": (s12**2).sum() / energy,
        "core_energy": (core**2).sum() / energy,
        "rec": np.minimum(p, q).sum(),
        "spectrum_l1": np.abs(s2 - s12).sum(),
        "spectrum_l2": np.linalg.norm(s2 - s12),
        "sar": np.linalg.norm(um[:, :k] @ um[:, :k].T @ first) / np.linalg.norm(first),
        "sti": np.abs((U.T @ U - np.eye(len(S))) @ S @ (V.T @ V - np.eye(len(S)))).sum(),
        "sign_agreement": (np.sign(first) == np.sign(second)).mean(),
        "top_overlap": (tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum(),
    }


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_metric_agrees_with_its_definition(compare, family, kind, side):
    models, rank = FAMILIES[kind]
    found = compare(*models, metrics=list(METRICS), rank=rank, side=side)
    # The intermediate layer, 32 by 16, is not square and, without its bias, a matrix of its own.
    deltas = [dense_delta(family, model, f"{QUERY}.weight") for model in models]
    if kind == "dense":
        name = "encoder.layer.1.intermediate.dense"
        deltas = [dense_delta(family, model, f"{name}.weight") for model in models]
    else:
        name = QUERY
    for (i, first), (j, second) in itertools.permutations(enumerate(deltas), 2):
        reference = expected(first, second, rank, side)
        assert reference.keys() == METRICS.keys()
        for metric, value in reference.items():
            if kind == "dense" and METRICS[metric].needs in ("sums", "counts"):
                continue  # of weight and bias together: below
            array = found[metric].isel(task=i, other=j).sel(module=name)
            assert float(array) == pytest.approx(value, rel=2e-5, abs=1e-6), metric


def test_sums_and_counts_are_of_weight_and_bias_together(compare, family):
    found = compare("sentiment", "topics", metrics=["sign_agreement", "top_overlap"], modules="q")
    parts = [
        [dense_delta(family, model, f"{QUERY}.{name}").ravel() for name in ("weight", "bias")]
        for model in ("sentiment", "topics")
    ]
    first, second = (np.concatenate(each) for each in parts)
    pair = found.data.sel(task="sentiment", other="topics", module=QUERY)
    assert float(pair["sign_agreement"]) == (np.sign(first) == np.sign(second)).mean()
    # A fifth of each parameter: 52 of the weight's 256, 4 of the bias' 16.
    tops = [
        np.concatenate([abs(d) >= np.sort(abs(d))[-math.ceil(0.2 * d.size)] for d in each])
        for each in parts
    ]
    overlap = (tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum()
    assert float(pair["top_overlap"]) == overlap


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_model_and_itself(compare, kind):
    models, rank = FAMILIES[kind]
    found = compare(*models, metrics=list(METRICS), rank=rank, modules="q")
    for metric, entry in METRICS.items():
        own = found[metric].isel(task=0, other=0)
        if entry.sense == "distance":
            np.testing.assert_array_equal(own, 0.0, metric)
        elif metric in ("rec", "sign_agreement", "top_overlap"):
            np.testing.assert_allclose(own, 1.0, rtol=1e-6, err_msg=metric)


def test_orthogonal_updates_share_no_spectrum():
    """S₂ is rounding error, in shares like any other; so it was in 0.4 of the spectrum."""
    Q, P = (np.linalg.qr(np.random.default_rng(s).normal(size=(40, 8)))[0] for s in (0, 1))
    U, V = torch.from_numpy(Q), torch.from_numpy(P)
    S = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    parts = [Decomposition(U[:, c], S, V[:, c]) for c in (slice(0, 4), slice(4, 8))]
    cores = Decomposed(tuple(parts), (40, 40)).cores(S.norm().repeat(2))
    raw = cores.values.diagonal(dim1=-2, dim2=-1)[0, 1]
    assert raw.any()
    assert raw.abs().max() < 1e-13
    np.testing.assert_allclose(cores.overlap(), np.eye(2), atol=1e-12)


def test_scales_of_ia3_are_updates_of_the_weights_they_scale(family, tmp_path):
    """Of a layer's outputs: ΔW = diag(l − 1)·W."""
    from peft import IA3Config, get_peft_model
    from transformers import BertModel

    torch.manual_seed(0)
    config = IA3Config(target_modules=["query"], feedforward_modules=[], init_ia3_weights=False)
    model = get_peft_model(BertModel.from_pretrained(family / "base"), config)
    scales = torch.linspace(0.5, 2.0, 16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ia3" in name:
                parameter.copy_(scales.reshape(parameter.shape))
    model.save_pretrained(tmp_path / "scaled")
    found = alliage.compare(
        family / "base", [tmp_path / "scaled", family / "topics"], ["core_energy"],
        modules="q", rank=4,
    ).data.sel(module=QUERY)  # fmt: skip
    weight = load_file(family / "base" / "model.safetensors")[f"{QUERY}.weight"].double()
    first = ((scales.double() - 1)[:, None] * weight).numpy()
    second = dense_delta(family, "topics", f"{QUERY}.weight")
    assert float(found["core_energy"][0, 1]) == pytest.approx(
        expected(first, second, 4)["core_energy"], rel=2e-5
    )


def test_interference_with_a_copy_is_that_with_itself(family, tmp_path):
    """2ΣS: each direction meets its own twin once on either side."""
    shutil.copytree(family / "topics", tmp_path / "copy")
    models = [family / "topics", tmp_path / "copy"]
    found = alliage.compare(family / "base", models, ["sti"], modules="q", rank=3)
    s = np.linalg.svd(dense_delta(family, "topics", f"{QUERY}.weight"), compute_uv=False)
    values = found["sti"].sel(module=QUERY)
    np.testing.assert_allclose(values, np.full((2, 2), 2 * s[:3].sum()), rtol=1e-5)


def test_sar_of_dense_updates_does_not_depend_on_the_rank(compare, monkeypatch):
    few, many = (compare("sentiment", "topics", metrics=["sar"], rank=k) for k in (1, 9))
    assert few.data.equals(many.data)
    assert not [note for note in few.notes if "sar" in note]
    for module in ("leading", "surveying.notes", "surveying.measuring"):
        monkeypatch.setattr(f"alliage.geometry.{module}.EXACT_SIDE", 8)
    cut = compare("sentiment", "topics", metrics=["sar"], rank=1, modules="q")
    assert "above 8, sar is of the leading directions" in cut.notes[-1]
    assert not np.allclose(cut["sar"].sel(module=QUERY), few["sar"].sel(module=QUERY))


def test_means_over_matrices_for_layers_and_the_model(compare):
    names = [name for name, entry in METRICS.items() if entry.needs not in ("sums", "counts")]
    modules, layers, model = (
        compare("sentiment-lora", "topics-lora", metrics=names, by=by)
        for by in ("module", "layer", "model")
    )
    for name in names:
        inside = modules[name].where(modules[name].layer == 1, drop=True).mean("module")
        np.testing.assert_allclose(
            layers[name].sel(module="encoder.layer.1"), inside, rtol=1e-12, err_msg=name
        )
        np.testing.assert_allclose(
            model[name].sel(module="model"), modules[name].mean("module"), rtol=1e-12
        )
    for table in (modules.null, layers.null):
        assert "rec_sd" in table
        assert "sti" in table
        assert "sti_sd" not in table
        assert "sar" not in table


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_same_bytes_with_any_blocks_and_workers(compare, kind, monkeypatch):
    models, rank = FAMILIES[kind]
    settings = {"metrics": list(METRICS), "rank": rank, "spectra": True}
    whole = compare(*models, **settings)
    monkeypatch.setattr("alliage.geometry.surveying.comparing.cpu_count", lambda: 1)
    alone = compare(*models, **settings)
    assert alone.data.identical(whole.data)
    assert alone.null.identical(whole.null)
    assert alone.spectra.identical(whole.spectra)
    monkeypatch.setattr(pieces, "_BLOCK", 40)
    blocks = compare(*models, **settings)
    for name in METRICS:
        np.testing.assert_allclose(blocks[name], whole[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_low_rank_surveys_never_form_the_product(compare, monkeypatch):
    """Only the two metrics of elements look at elements."""

    def refuse(*_):
        raise AssertionError("the dense product was asked for")

    monkeypatch.setattr("alliage.vectors.LowRankVector.block", refuse)
    monkeypatch.setattr("alliage.vectors.LowRankVector.delta", refuse)
    names = [name for name, entry in METRICS.items() if entry.needs != "counts"]
    found = compare("sentiment-lora", "topics-lora", metrics=names, spectra=True)
    assert found.metrics == tuple(names)
    with pytest.raises(AssertionError, match="dense product"):
        compare("sentiment-lora", "topics-lora", metrics=["sign_agreement"])


def test_factors_alone(compare, family):
    from safetensors.torch import load_file

    stem = f"base_model.model.bert.{QUERY}"
    for of in "AB":
        first, second = (
            load_file(family / model / "adapter_model.safetensors")[f"{stem}.lora_{of}.weight"]
            .double()
            .numpy()
            for model in ("sentiment-lora", "topics-lora")
        )
        found = compare(
            "sentiment-lora", "topics-lora", metrics=["l2", "cosine", "geodesic", "ye_lim"], of=of
        ).data.isel(task=0, other=1).sel(module=QUERY)  # fmt: skip
        cosine = (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)
        spaces = (first.T, second.T) if of == "A" else (first, second)
        assert float(found["l2"]) == pytest.approx(np.linalg.norm(first - second), rel=1e-9)
        assert float(found["cosine"]) == pytest.approx(1 - cosine, rel=1e-9)
        geodesic = np.linalg.norm(subspace_angles(*spaces))
        assert float(found["geodesic"]) == pytest.approx(geodesic, rel=1e-9)


def adapter(family, folder, rank):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import BertModel

    torch.manual_seed(rank)
    config = LoraConfig(r=rank, target_modules=["query", "value"], init_lora_weights=False)
    get_peft_model(BertModel.from_pretrained(family / "base"), config).save_pretrained(folder)
    return folder


def test_ranks_that_differ(family, tmp_path):
    wide, narrow = (adapter(family, tmp_path / f"rank-{r}", r) for r in (3, 1))
    found = alliage.compare(
        family / "base", [wide, narrow], ["geodesic", "ye_lim", "core_energy"], modules="q"
    ).data.isel(task=0, other=1)  # fmt: skip
    surplus = found["ye_lim"] ** 2 - found["geodesic"] ** 2
    np.testing.assert_allclose(surplus, 2 * math.pi**2 / 4, rtol=1e-12)
    spaces = alliage.compare(family / "base", [wide, narrow], ["geodesic"], of="B")
    assert spaces["geodesic"].notnull().all()
    with pytest.raises(alliage.errors.UsageError, match="3 in rank-3, 1 in rank-1: elements of A"):
        alliage.compare(family / "base", [wide, narrow], ["l2"], of="A")


def test_distances_between_unlike_spaces_are_told_by_their_chance(family, tmp_path):
    """Of one angle against of three: the geodesic of fewer is smaller, and not nearer for that."""
    models = [adapter(family, tmp_path / f"rank-{r}", r) for r in (5, 3, 1)]
    found = alliage.compare(family / "base", models, ["geodesic", "ye_lim"], modules="q")
    (note,) = [note for note in found.notes if "differ in dimension" in note]
    assert "5 in rank-5, 3 in rank-3, 1 in rank-1" in note
    assert "ye_lim" in note
    means = found["geodesic"].mean("module").to_numpy()
    with np.errstate(invalid="ignore"):  # 0/0 on the diagonal
        shares = means / found.null["geodesic"].mean("module").to_numpy()
    pairs = {(i, j): shares[i, j] for i, j in ((0, 1), (0, 2), (1, 2))}
    (i, j), low = min(pairs.items(), key=lambda pair: pair[1])
    line, other = found.findings()
    nearest = f"nearest {found.names[i]} – {found.names[j]} {low:.4g}"
    assert line.startswith(f"geodesic, in shares of each pair's chance: {nearest}")
    assert other.startswith("ye_lim: nearest")
    alike = alliage.compare(family / "base", models[:2], ["geodesic"], of="B")
    assert "in shares" not in alike.findings()[0]  # one pair has nothing to be compared with


def test_a_matrix_of_rank_zero(family):
    """Untrained adapters have B = 0: no directions, nothing to be included, and it is said."""
    base = alliage.open(family / "base")
    tuned = open_vector(family / "topics-lora", base)
    nothing = (0.0 * open_vector(family / "sentiment-lora", base)).named("nothing")
    names = [name for name in METRICS if name not in ("l2", "l2_spectral")]
    found = survey([nothing, tuned], names, modules="q", spectra=True)
    for name in names:
        if name not in ("spectrum_l1", "spectrum_l2"):
            assert found[name].isel(task=0, other=1).isnull().all(), name
        if name != "sar":  # merged with nothing, an update keeps its own main directions
            assert found[name].isel(task=1, other=0).isnull().all(), name
        for table in (found.null, found.data):
            if name in table:
                assert np.isfinite(table[name].isel(task=1, other=1)).all(), name
    # Of nothing, nothing is used: what is between the spectra is all of the other's.
    own = found.spectra["singular_values"].sel(task=tuned.name).sum("direction")
    np.testing.assert_allclose(found["spectrum_l1"].isel(task=0, other=1), own, rtol=1e-12)
    assert found.spectra["rank"].sel(task="nothing").values.tolist() == [0, 0]
    assert found.spectra["effective_rank"].sel(task="nothing").isnull().all()
    assert found.notes[0].startswith("nothing equals the base in 2 of 2 modules")
    for line in found.findings():
        assert line.endswith("not defined for any pair.") or line.startswith(("spectrum_l", "sar"))


def test_all_wrong_settings_at_once(compare):
    with pytest.raises(alliage.errors.UsageError) as caught:
        compare(
            "sentiment-lora", "topics-lora", metrics=["core_energy", "core_enrgy"], of="A",
            side="right", rank=3, energy=1.5, spectra=True,
        )  # fmt: skip
    text = str(caught.value)
    for part in (
        "Did you mean 'core_energy'", "not defined for A alone", "Of factors there are l2, cosine",
        "by its rows", "at most 1, got 1.5", "Give one of the two", "are of whole updates",
    ):  # fmt: skip
        assert part in text
    with pytest.raises(alliage.errors.UsageError, match=r"Did you mean 'left'"):
        compare("sentiment", "topics", side="lefft")
    with pytest.raises(alliage.errors.UsageError, match=r"sentiment: has no factor A"):
        compare("sentiment", "topics-lora", of="A")


def test_names_and_needs_are_whole():
    """A new metric is one entry: everything that is shown of it is there."""
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.definition
        assert not metric.definition.endswith(".")
        assert metric.unit in ("weights", "radians", "none")
        assert bool(metric.by_chance) == (metric.chance is not None)
    assert measuring.TOP == 0.2  # "the fifth" in the words


@pytest.mark.parametrize("frozen", [[QUERY], ["encoder.layer.0", "encoder.layer.1"]])
@pytest.mark.parametrize("metric", ["core_energy", "explained_energy", "geodesic"])
def test_modules_that_nobody_changes(family, tmp_path, frozen, metric):
    base = load_file(family / "base" / "model.safetensors")
    models = {}
    for name in ("sentiment", "topics"):
        shutil.copytree(family / name, tmp_path / name)
        weights = load_file(tmp_path / name / "model.safetensors")
        for key in [key for key in weights if any(part in key for part in frozen)]:
            (weights[key],) = (base[own] for own in base if key.endswith(own) or own.endswith(key))
        save_file(weights, tmp_path / name / "model.safetensors")
        models[name] = tmp_path / name
    found = alliage.compare(family / "base", models, [metric])
    values = found[metric].sel(task="sentiment", other="topics")
    still = [str(name) for name in values["module"].values if name.startswith(tuple(frozen))]
    assert len(still) >= len(frozen)
    assert values.sel(module=still).isnull().all()
    moved = values.sel(module=[n for n in values["module"].values if n not in still])
    matrices = moved.sel(module=[n for n in moved["module"].values if "dense" in n or "self" in n])
    assert matrices.notnull().all()
