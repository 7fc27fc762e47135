"""The engine beside numpy on whole vectors."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage import vectors
from alliage.errors import AlliageError, UsageError
from alliage.geometry import count_interference
from alliage.geometry.interference import streaming
from alliage.merging.methods.ties import ties


@pytest.fixture(params=["in one piece", "in many pieces"])
def pieces(request, monkeypatch):
    if request.param == "in many pieces":
        sizes = {"_BLOCK": 16, "_CHUNK": 48, "_SAMPLE": 60, "_SLICE": 6}
        for name, size in sizes.items():
            monkeypatch.setattr(streaming, name, size)


def whole(folders):
    """Task vectors [n, d] and the module of each entry, by safetensors alone."""
    base, *models = [load_file(folder / "model.safetensors") for folder in folders]
    names = sorted(base)
    deltas = [torch.cat([(model[n] - base[n]).flatten() for n in names]) for model in models]
    homes = [name.rpartition(".")[0] for name in names for _ in range(base[name].numel())]
    return torch.stack(deltas).numpy(), np.array(homes)


def trimmed(deltas, share):
    """As in arXiv:2306.01708's code: at least the (d − ⌊dK⌋)-th smallest magnitude."""
    kept = np.zeros_like(deltas)
    for row, delta in zip(kept, deltas, strict=True):
        ordered = np.sort(np.abs(delta))
        rank = len(delta) - int(len(delta) * share)
        limit = ordered[rank - 1] if rank else 0
        row[:] = np.where(np.abs(delta) >= limit, delta, 0)
    return kept


def conflict(kept):
    """Parameters that two or more keep, and those whose signs differ."""
    shared = (kept != 0).sum(axis=0) >= 2
    return shared, shared & (kept.max(axis=0) > 0) & (kept.min(axis=0) < 0)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("count", [2, 4, 11])
@pytest.mark.usefixtures("pieces")
def test_all_counts_beside_numpy(tuned, count, coarse):
    base, *models = tuned(count, coarse=coarse)
    found = alliage.interference(base, models, top_k=0.25)
    deltas, homes = whole([base, *models])
    d = deltas.shape[1]
    assert found.names == tuple(f"model{number}" for number in range(count))
    assert found.data["top_k"].values.tolist() == pytest.approx(
        [0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    )
    for share in found.data["top_k"].values:
        kept = trimmed(deltas, share)
        shared, conflicting = conflict(kept)
        whole_model = found.conflicts().sel(top_k=share, group="model")
        assert whole_model["conflict"] == pytest.approx(conflicting.sum() / shared.sum())
        assert whole_model["conflict_of_all"] == pytest.approx(conflicting.sum() / d)
        by_module = found.conflicts("module").sel(top_k=share)
        for module in set(homes):
            here = homes == module
            expected = conflicting[here].sum() / here.sum()
            assert by_module["conflict_of_all"].sel(group=module) == pytest.approx(expected)
        pairs = found.pairs().sel(top_k=share, group="model")
        for i, j in itertools.combinations(range(count), 2):
            both = (kept[i] != 0) & (kept[j] != 0)
            either = (kept[i] != 0) | (kept[j] != 0)
            assert pairs["overlap"][i, j] == pairs["overlap"][j, i]
            assert pairs["overlap"][i, j] == pytest.approx(both.sum() / either.sum())
            opposed = (kept[i] * kept[j] < 0).sum()
            assert pairs["conflict"][i, j] == pytest.approx(opposed / both.sum())
        keeping = np.bincount((kept != 0).sum(axis=0), minlength=count + 1) / d
        assert found.influence().sel(top_k=share, group="model").values == pytest.approx(keeping)


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.usefixtures("pieces")
def test_subsets_beside_numpy(tuned, count):
    base, *models = tuned(count)
    found = alliage.interference(base, models, top_k=0.3)
    kept = trimmed(whole([base, *models])[0], 0.3)
    numbers = found.by_number()
    for size in range(2, count + 1):
        shares = [
            conflict(kept[list(some)])[1].mean()
            for some in itertools.combinations(range(count), size)
        ]
        here = numbers.sel(number=size)
        assert here["subsets"] == len(shares)
        assert here["conflict_of_all"] == pytest.approx(np.mean(shares))
        assert [here["low"], here["high"]] == pytest.approx([min(shares), max(shares)])


@pytest.mark.usefixtures("pieces")
def test_magnitudes_beside_the_merge_methods(tuned):
    base, *models = tuned(4)
    found = alliage.interference(base, models, top_k=0.2)
    deltas = whole([base, *models])[0]
    kept = trimmed(deltas, 0.2)
    number = (kept != 0).sum(axis=0)
    merged = {
        "mean": deltas.mean(axis=0),
        "trimmed": kept.mean(axis=0),
        "trimmed_disjoint": kept.sum(axis=0) / np.maximum(number, 1),
        "elected_disjoint": ties(torch.from_numpy(deltas), density=1.0, zero="positive").numpy(),
        "ties": ties(torch.from_numpy(deltas), density=0.2, zero="positive").numpy(),
    }
    groups = {"redundant": number == 0, "for one model": number == 1,
              "for several models": number > 1}  # fmt: skip
    sizes = found.magnitudes()
    for step, values in merged.items():
        for group, here in groups.items():
            cell = sizes.sel(step=step, influence=group)
            assert cell["parameters"] == here.sum()
            assert cell["magnitude"] == pytest.approx(np.abs(values[here]).mean(), rel=1e-5)
            deviation = np.abs(values[here]).std()
            assert cell["deviation"] == pytest.approx(deviation, rel=1e-3, abs=1e-8)
    up, down = (deltas > 0).sum(axis=0), (deltas < 0).sum(axis=0)
    agreement = np.maximum(up, down) / (up + down)
    by_agreement = found.magnitudes("agreement").sel(step="mean")
    for label, value in (("0.5-0.6", 0.5), ("0.7-0.8", 0.75), ("0.9-1.0", 1.0)):
        here = agreement == value
        assert by_agreement["parameters"].sel(agreement=label) == here.sum()
        expected = np.abs(merged["mean"][here]).mean()
        assert by_agreement["magnitude"].sel(agreement=label) == pytest.approx(expected, rel=1e-5)
    assert sizes["parameters"].sum() == deltas.shape[1]


def test_threads_and_pieces_change_nothing(tuned, monkeypatch):
    base, *models = tuned(5)
    monkeypatch.setattr(streaming, "_SAMPLE", 60)
    monkeypatch.setattr(streaming, "_SLICE", 6)
    monkeypatch.setattr(streaming, "_CHUNK", 48)
    monkeypatch.setattr(streaming, "_BLOCK", 16)
    one = alliage.interference(base, models, threads=1)
    for threads in (2, 3):
        assert one.data.identical(alliage.interference(base, models, threads=threads).data)
    monkeypatch.setattr(streaming, "_BLOCK", 24)
    other = alliage.interference(base, models, threads=2)
    for name in one.data:
        values = one.data[name].values
        if np.issubdtype(values.dtype, np.integer):
            assert np.array_equal(values, other.data[name].values), name
        elif values.dtype != bool:
            assert values == pytest.approx(other.data[name].values, rel=1e-12), name


def test_more_models_and_more_entries_conflict_more(tuned):
    """arXiv:2306.01708, figures 4 and 9."""
    base, *models = tuned(6)
    found = alliage.interference(base, models)
    numbers = found.by_number()["conflict_of_all"].values
    assert (np.diff(numbers) > 0).all()
    shares = found.conflicts()["conflict_of_all"].sel(group="model").values
    assert (np.diff(shares) > 0).all()


def test_selected_modules_are_all_that_counts(tuned):
    base, *models = tuned(2)
    found = alliage.interference(base, models, modules="q", last_layers=1)
    assert found.data["module"].values.tolist() == ["encoder.layer.1.attention.self.query"]
    assert found.data["parameters"].sum() == 42
    deltas, homes = whole([base, *models])
    kept = trimmed(deltas[:, homes == "encoder.layer.1.attention.self.query"], 0.2)
    shared, conflicting = conflict(kept)
    expected = conflicting.sum() / shared.sum()
    assert found.conflicts().sel(top_k=0.2, group="model")["conflict"] == pytest.approx(expected)


# -- adapters


def test_low_rank_updates_are_taken_as_matrices(family):
    models = [family / "sentiment-lora", family / "topics-lora"]
    found = alliage.interference(family / "base", models, top_k=0.5)
    rows = []
    for model in models:
        factors = load_file(model / "adapter_model.safetensors")
        stems = sorted({n.rpartition(".lora_")[0] for n in factors if ".lora_A" in n})
        updates = [
            2.0 * factors[f"{stem}.lora_B.weight"] @ factors[f"{stem}.lora_A.weight"]
            for stem in stems
        ]
        rows.append(torch.cat([update.flatten() for update in updates]))
    kept = trimmed(torch.stack(rows).numpy(), 0.5)
    shared, conflicting = conflict(kept)
    at = found.conflicts().sel(top_k=0.5, group="model")
    assert at["conflict_of_all"] == pytest.approx(conflicting.sum() / shared.size)
    assert found.data["module"].size == 4


def test_an_adapter_beside_a_full_model_counts_where_both_change(family):
    models = [family / "sentiment-lora", family / "topics"]
    found = alliage.interference(family / "base", models)
    assert set(found.data["kind"].values.tolist()) == {"query", "value"}
    assert any("35 of 39 parameters" in note for note in found.notes)


@pytest.fixture
def scaled(tmp_path, family):
    """Two (IA)3 adapters, and their scales."""
    from peft import IA3Config, get_peft_model
    from transformers import BertModel

    found = []
    for seed in range(2):
        adapted = get_peft_model(
            BertModel.from_pretrained(family / "base"),
            IA3Config(
                target_modules=["value", "output.dense"], feedforward_modules=["output.dense"]
            ),
        )
        generator = torch.Generator().manual_seed(seed)
        for key, parameter in adapted.named_parameters():
            if "ia3_l" in key:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        adapted.save_pretrained(tmp_path / f"scales{seed}")
        found.append(tmp_path / f"scales{seed}")
    return found


def test_scales_are_counted_as_in_the_paper(family, scaled):
    found = alliage.interference(family / "base", scaled, top_k=0.4)
    rows = []
    for folder in scaled:
        stored = load_file(folder / "adapter_model.safetensors")
        rows.append(torch.cat([stored[name].flatten() - 1 for name in sorted(stored)]))
    kept = trimmed(torch.stack(rows).numpy(), 0.4)
    shared, conflicting = conflict(kept)
    at = found.conflicts().sel(top_k=0.4, group="model")
    assert found.data["parameters"].sum() == shared.size
    assert at["conflict_of_all"] == pytest.approx(conflicting.sum() / shared.size)
    assert any("learned scales" in note for note in found.notes)


def test_scales_beside_a_full_model_are_what_they_do_to_the_weights(family, scaled):
    found = alliage.interference(family / "base", [scaled[0], family / "topics"])
    base = load_file(family / "base" / "model.safetensors")
    modules = found.data["module"].values.tolist()
    expected = sum(base[f"{m}.weight"].numel() for m in modules)
    biases = sum(base[f"{m}.bias"].numel() for m in modules if "value" in m)
    assert found.data["parameters"].sum() == expected + biases


# -- bad input


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"top_k": 20}, "top_k: must be above 0 and at most 1, got 20. 20 % are 0.2."),
        ({"top_k": 0}, "top_k: must be above 0"),
        ({"top_k": float("nan")}, "top_k: must be above 0"),
        ({"modules": "valeu"}, "Did you mean 'value'"),
        ({"modules": "head"}, "kind of module 'head': is in none of them"),
        ({"last_layers": 0}, "last_layers: must be 1 or more"),
        ({"last_layers": 3}, "the model has 2 layers"),
        ({"threads": 0}, "threads: must be 1 or more"),
        ({"seed": -1}, "seed: must be 0 or more"),
    ],
)
def test_wrong_arguments(tuned, settings, said):
    base, *models = tuned(2)
    with pytest.raises(UsageError) as caught:
        alliage.interference(base, models, **settings)
    assert said in str(caught.value)


@pytest.mark.parametrize("count", [0, 1])
def test_one_model_interferes_with_nobody(tuned, count):
    base, *models = tuned(count)
    with pytest.raises(UsageError, match=f"expected two or more, got {count}"):
        alliage.interference(base, models)


def test_a_model_given_twice(tuned):
    base, model = tuned(1)
    with pytest.raises(UsageError, match="is the name of 2 models"):
        alliage.interference(base, [model, model])


def test_identical_models_agree_everywhere(tuned):
    base, model = tuned(1)
    found = alliage.interference(base, {"one": model, "other": model})
    assert "one and other have the same signs everywhere." in found.notes
    pairs = found.pairs().sel(group="model", task="one", other="other")
    assert (pairs["conflict"] == 0).all()
    assert (pairs["overlap"] == 1).all()


def test_a_model_that_equals_the_base_is_undefined(tuned):
    base, model = tuned(1)
    found = alliage.interference(base, {"base": base, "model": model})
    assert any(note.startswith("base equals the base") for note in found.notes)
    at = found.conflicts().sel(group="model")
    assert at["conflict"].isnull().all()
    assert (at["conflict_of_all"] == 0).all()
    assert found.findings() == [
        "No two models keep a common parameter (top 20%): no signs can conflict."
    ]
    twins = alliage.interference(base, {"base": base, "same": base})
    assert twins.pairs()["overlap"].isnull().all()
    assert twins.magnitudes()["magnitude"].sel(influence="redundant", step="mean") == 0


def test_few_values_keep_more_than_asked_for(tuned):
    base, *models = tuned(2, coarse=True)
    found = alliage.interference(base, models, top_k=0.1)
    kept = [(row != 0).mean() for row in trimmed(whole([base, *models])[0], 0.1)]
    assert min(kept) > 0.12
    for number, share in enumerate(kept):
        assert any(n.startswith(f"model{number} keeps {share:.1%}, not 10%") for n in found.notes)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(tuned, value):
    base, *models = tuned(3)
    for model in models[1:]:
        tensors = load_file(model / "model.safetensors")
        tensors["encoder.layer.1.output.dense.weight"][2, 3] = value
        save_file(tensors, model / "model.safetensors")
    with pytest.raises(AlliageError) as caught:
        alliage.interference(base, models)
    assert [problem.where for problem in caught.value.problems] == [
        f"{model / 'model.safetensors'}: encoder.layer.1.output.dense.weight"
        for model in models[1:]
    ]


def test_a_base_that_is_not_finite_is_blamed_alone(tuned):
    base, *models = tuned(2)
    tensors = load_file(base / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"][0, 0] = float("nan")
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(AlliageError) as caught:
        alliage.interference(base, models)
    assert [problem.where for problem in caught.value.problems] == [
        f"{base / 'model.safetensors'}: encoder.layer.0.output.dense.weight"
    ]


def test_models_without_common_parameters(write):
    weights = {
        name: torch.zeros(2, 2) for name in ("layers.0.q_proj.weight", "layers.1.q_proj.weight")
    }
    base = write("base", weights)
    some = [vectors.open(write(f"m{number}", weights), base) for number in range(2)]
    for vector, name in zip(some, weights, strict=True):
        vector.shapes = {name: (2, 2)}
    with pytest.raises(UsageError, match="changes no parameter that all others change too"):
        count_interference(some)


def test_sums_of_vectors_are_vectors(tuned):
    base, *models = tuned(3)
    one, two, three = (vectors.open(model, base) for model in models)
    found = count_interference([(one + two).named("sum"), three], top_k=0.5)
    deltas, _ = whole([base, *models])
    shared, conflicting = conflict(trimmed(np.stack([deltas[0] + deltas[1], deltas[2]]), 0.5))
    at = found.conflicts().sel(top_k=0.5, group="model")
    assert at["conflict_of_all"] == pytest.approx(conflicting.sum() / shared.size)
