"""Oracles: deltas read by safetensors itself and PEFT's own merge, measured by numpy and scipy."""

import itertools
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.linalg import subspace_angles

import alliage
from alliage import vectors
from alliage.errors import AlliageError, UsageError
from alliage.geometry import survey
from alliage.geometry.surveying.metrics import METRICS
from tests.conftest import bert_config

QUERY = "encoder.layer.1.attention.self.query"


def dense_delta(family, model, name):
    base = load_file(family / "base" / "model.safetensors")[name].double()
    if not model.endswith("-lora"):
        tuned = load_file(family / model / "model.safetensors")
        return (tuned[f"bert.{name}"].double() - base).numpy()
    factors = load_file(family / model / "adapter_model.safetensors")
    stem = f"base_model.model.bert.{name.removesuffix('.weight')}"
    B, A = (factors[f"{stem}.lora_{side}.weight"].double() for side in "BA")
    return (2.0 * B @ A).numpy()  # α/r = 4/2


def cosine_distance(first, second):
    return 1 - (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)


def left_space(delta, rank):
    return np.linalg.svd(delta)[0][:, :rank]


@pytest.fixture
def compare(family):
    def run(*models, **settings):
        return alliage.compare(family / "base", [family / model for model in models], **settings)

    return run


@pytest.mark.parametrize(
    ("models", "rank"),
    [
        (("sentiment", "topics"), 5),
        (("sentiment-lora", "topics-lora"), 2),
        (("sentiment-lora", "topics"), 2),
    ],
    ids=["dense", "low-rank", "mixed"],
)
def test_a_module_agrees_with_its_matrices(compare, family, models, rank):
    found = compare(*models, rank=rank)
    names = [f"{QUERY}.weight"]
    if all(not model.endswith("-lora") for model in models):
        names.append(f"{QUERY}.bias")
    deltas = [[dense_delta(family, model, name) for name in names] for model in models]
    first, second = (np.concatenate([d.ravel() for d in each]) for each in deltas)
    expected = {
        "l2": np.linalg.norm(first - second),
        "cosine": cosine_distance(first, second),
        "geodesic": np.linalg.norm(
            subspace_angles(*(left_space(each[0], rank) for each in deltas))
        ),
    }
    for metric, value in expected.items():
        array = found[metric].sel(task=models[0], other=models[1], module=QUERY)
        assert float(array) == pytest.approx(value, rel=1e-5)
        assert float(array.layer) == 1
        assert str(array.kind.item()) == "query"


def test_axes_and_means(compare):
    found = compare("sentiment", "topics", "sentiment-lora")
    array = found["geodesic"]
    assert array.dims == ("task", "other", "module")
    frame = array.mean("module").to_pandas()
    assert list(frame.index) == list(frame.columns) == ["sentiment", "topics", "sentiment-lora"]
    np.testing.assert_array_equal(frame, frame.T)
    np.testing.assert_array_equal(np.diag(frame), 0.0)
    assert set(array.kind.values) == {"query", "value"}
    assert float(array.where(array.layer == 1, drop=True).sizes["module"]) == 2


def test_layers_and_model_add_up(compare):
    modules = compare("sentiment", "topics")
    layers = compare("sentiment", "topics", by="layer")
    model = compare("sentiment", "topics", by="model")
    assert list(layers.data["module"].values) == [
        "outside the layers", "encoder.layer.0", "encoder.layer.1",
    ]  # fmt: skip
    squares = [
        (s["l2"].sel(task="sentiment", other="topics") ** 2).sum() for s in (modules, layers)
    ]
    total = float(model["l2"].sel(task="sentiment", other="topics").item()) ** 2
    assert [float(square) for square in squares] == pytest.approx([total, total], rel=1e-12)
    inside = modules["geodesic"].where(modules["geodesic"].layer == 0, drop=True).mean("module")
    assert float(inside[0, 1]) == pytest.approx(
        float(layers["geodesic"].sel(module="encoder.layer.0")[0, 1]), rel=1e-12
    )


def test_biases_and_norms_have_no_geodesic(compare):
    found = compare("sentiment", "topics").data.sel(task="sentiment", other="topics")
    norm = found.sel(module="encoder.layer.0.output.LayerNorm")
    assert math.isnan(norm["geodesic"])
    assert float(norm["l2"]) > 0


def test_selection(compare):
    found = compare("sentiment", "topics", modules="q,mlp", last_layers=1)
    assert list(found.data["module"].values) == [
        QUERY,
        "encoder.layer.1.intermediate.dense",
        "encoder.layer.1.output.dense",
    ]
    same = compare("sentiment", "topics", modules=["query", "mlp"], last_layers=1)
    assert same.data.identical(found.data)


def test_other_angle_metrics_and_the_null(compare):
    found = compare("sentiment-lora", "topics-lora", metrics=["chordal", "asimov"], modules="v")
    assert found.metrics == ("chordal", "asimov")
    # Two planes in 16 dimensions: the mean of Σsin² is 2 − 4/16.
    null = found.null["chordal"].sel(task="sentiment-lora", other="topics-lora")
    assert float(null.mean()) == pytest.approx(math.sqrt(2 - 4 / 16), abs=0.03)
    assert "random subspaces" in found.findings()[0]


def test_identical_models_are_at_zero(family, tmp_path, compare):
    for model in ("sentiment", "sentiment-lora"):
        shutil.copytree(family / model, tmp_path / "again" / model)
        found = alliage.compare(
            family / "base",
            {"one": family / model, "two": tmp_path / "again" / model},
            [name for name, metric in METRICS.items() if metric.sense == "distance"],
        )
        for metric in found.metrics:
            pair = found[metric].sel(task="one", other="two").dropna("module")
            assert pair.sizes["module"] > 0
            np.testing.assert_array_equal(pair, 0.0)


def test_folders_of_one_name_are_told_apart(family, tmp_path):
    shutil.copytree(family / "topics", tmp_path / "sentiment")
    found = alliage.compare(family / "base", [family / "sentiment", tmp_path / "sentiment"])
    assert found.names == (str(family / "sentiment"), str(tmp_path / "sentiment"))


def test_a_model_that_equals_the_base_has_no_cosine_and_says_so(family, compare):
    found = alliage.compare(
        family / "base", {"same": family / "base", "tuned": family / "sentiment"}
    )
    pair = found.data.sel(task="same", other="tuned")
    assert (pair["l2"] > 0).all()
    assert pair["cosine"].isnull().all()
    assert pair["geodesic"].isnull().all()
    assert found.notes[0].startswith("same equals the base in 21 of 21 modules")
    assert "cosine: not defined for any pair." in found.findings()
    assert {row["metric"] for row in found.to_rows()} == {"l2"}
    with pytest.raises(UsageError, match="not defined, among same"):
        found.map("cosine")


def test_parameters_that_only_some_change_are_left_out_and_named(compare):
    found = compare("sentiment", "topics-lora")
    assert found.data.sizes["module"] == 4
    assert found.notes[0].startswith("35 of 39 parameters are not tuned in all models")


def test_sums_of_vectors_take_part(family):
    base = alliage.open(family / "base")
    first, second = (
        vectors.open(family / model, base) for model in ("sentiment-lora", "topics-lora")
    )
    found = survey([first, first + second, second], ["l2"])
    both = found["l2"].isel(task=0, other=1)
    alone = [np.linalg.norm(dense_delta(family, "topics-lora", f"{m}.weight")) for m in
             found.data["module"].values]  # fmt: skip
    np.testing.assert_allclose(both, alone, rtol=1e-5)


def test_low_rank_surveys_never_form_the_product(compare, monkeypatch):
    def refuse(*_):
        raise AssertionError("the dense product was asked for")

    monkeypatch.setattr(vectors.LowRankVector, "block", refuse)
    monkeypatch.setattr(vectors.LowRankVector, "delta", refuse)
    assert compare("sentiment-lora", "topics-lora").data.sizes["module"] == 4


def test_results_do_not_depend_on_blocks_or_repetition(compare, monkeypatch):
    whole = compare("sentiment", "topics")
    assert compare("sentiment", "topics").data.identical(whole.data)
    monkeypatch.setattr("alliage.geometry.surveying.pieces._BLOCK", 7)
    np.testing.assert_allclose(compare("sentiment", "topics")["l2"], whole["l2"], rtol=1e-12)


def test_the_same_bytes_whatever_the_threads(tmp_path):
    """Of matrices that are large enough for every library to split its work."""
    name = "encoder.layer.0.attention.self.query.weight"
    for seed, model in enumerate(("base", "one", "two")):
        weights = torch.randn(384, 384, generator=torch.Generator().manual_seed(seed))
        save_file({name: weights}, tmp_path / f"{model}.safetensors")
    names = ["l2_spectral", "geodesic", "core_energy", "sar", "sti"]
    script = (
        "import alliage, hashlib, sys\n"
        f"found = alliage.compare('base.safetensors', ['one.safetensors', 'two.safetensors'], "
        f"{names}, spectra=True)\n"
        "for part in (found.data, found.null, found.spectra):\n"
        "    for array in part.values():\n"
        "        print(array.name, hashlib.sha256(array.to_numpy().tobytes()).hexdigest())\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True,
            text=True, env=os.environ | dict.fromkeys(
                ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
        ).stdout
        for threads in ("1", "4")
    ]  # fmt: skip
    assert len(printed[0].splitlines()) > len(names)
    assert printed[0] == printed[1]


def gpt2_pair(folder):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=8, n_layer=1, n_head=2, vocab_size=30, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    base = GPT2LMHeadModel(config)
    base.save_pretrained(folder / "base")
    for seed in (1, 2):
        model = GPT2LMHeadModel(config)
        model.load_state_dict(base.state_dict())
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder / f"tuned-{seed}")
    return [load_file(folder / name / "model.safetensors") for name in
            ("base", "tuned-1", "tuned-2")]  # fmt: skip


def test_images_are_of_outputs_however_weights_are_stored(tmp_path):
    """GPT-2 stores [in, out]; tables of embeddings hold one output in each row."""
    base, *tuned = gpt2_pair(tmp_path)
    found = alliage.compare(
        tmp_path / "base", [tmp_path / "tuned-1", tmp_path / "tuned-2"], ["geodesic"], rank=3
    )["geodesic"].isel(task=0, other=1)
    for module in ("transformer.h.0.mlp.c_fc", "transformer.wte"):
        spaces = [
            left_space((t[f"{module}.weight"].double() - base[f"{module}.weight"]).numpy().T, 3)
            for t in tuned
        ]
        expected = np.linalg.norm(subspace_angles(*spaces))
        assert float(found.sel(module=module)) == pytest.approx(expected, rel=1e-5)


def test_all_wrong_arguments_at_once(compare):
    with pytest.raises(UsageError) as caught:
        compare(
            "sentiment", "topics", metrics=["geodsic"], by="modul", modules="q,valeu",
            last_layers=0, rank=0,
        )  # fmt: skip
    text = str(caught.value)
    for part in ("Did you mean 'geodesic'?", "'module'", "'value'", "last_layers", "rank"):
        assert part in text
    assert len(caught.value.problems) == 5


def test_one_model_and_repeated_models_are_refused(compare):
    with pytest.raises(UsageError, match="two or more, got 1"):
        compare("sentiment")
    with pytest.raises(UsageError, match="is the name of 2 models"):
        compare("sentiment", "sentiment")


def test_more_layers_than_there_are(compare):
    with pytest.raises(UsageError, match="is 3, but the model has 2 layers"):
        compare("sentiment", "topics", last_layers=3)


def test_a_kind_that_is_nowhere(compare):
    with pytest.raises(UsageError, match="'mlp': is in none of them"):
        compare("sentiment-lora", "topics-lora", modules="mlp")


def test_models_without_common_modules_are_named(family, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import BertModel

    adapted = get_peft_model(BertModel(bert_config()), LoraConfig(r=2, target_modules=["key"]))
    adapted.save_pretrained(tmp_path / "keys")
    with pytest.raises(UsageError) as caught:
        alliage.compare(family / "base", [family / "sentiment-lora", tmp_path / "keys"])
    assert [problem.where for problem in caught.value.problems] == ["sentiment-lora", "keys"]
    assert "key.weight" in caught.value.problems[1].what


def spoil(family, tmp_path, model, file, names, value):
    shutil.copytree(family / model, tmp_path / model)
    tensors = load_file(tmp_path / model / file)
    for name in names:
        tensors[name].view(-1)[3] = value
    save_file(tensors, tmp_path / model / file, metadata={"format": "pt"})
    return tmp_path / model


def test_nan_and_infinity_are_named_with_file_and_tensor(family, tmp_path):
    full = spoil(
        family, tmp_path, "sentiment", "model.safetensors",
        [f"bert.{QUERY}.weight", "bert.embeddings.LayerNorm.bias"], math.nan,
    )  # fmt: skip
    with pytest.raises(AlliageError) as caught:
        alliage.compare(family / "base", [full, family / "topics"])
    assert caught.value.exit_code == 1
    assert [problem.where for problem in caught.value.problems] == [
        f"{full}/model.safetensors: bert.embeddings.LayerNorm.bias",
        f"{full}/model.safetensors: bert.{QUERY}.weight",
    ]
    adapter = spoil(
        family, tmp_path, "topics-lora", "adapter_model.safetensors",
        [f"base_model.model.bert.{QUERY}.lora_B.weight"], math.inf,
    )  # fmt: skip
    with pytest.raises(AlliageError, match=r"adapter_model\.safetensors: .*lora_B") as caught:
        alliage.compare(family / "base", [family / "sentiment-lora", adapter])
    assert len(caught.value.problems) == 1
    base = spoil(
        family, tmp_path, "base", "model.safetensors", [f"{QUERY}.weight"], math.nan
    )  # fmt: skip
    with pytest.raises(AlliageError) as caught:
        alliage.compare(base, [family / "sentiment", family / "topics"])
    assert [p.where for p in caught.value.problems] == [f"{base}/model.safetensors: {QUERY}.weight"]


def test_every_missing_model_is_named(family):
    with pytest.raises(UsageError) as caught:
        alliage.compare(family / "base", [family / "sentimnt", family / "topcs"])
    assert len(caught.value.problems) == 2


def test_shapes_that_differ_are_refused(family, tmp_path):
    from transformers import BertModel

    BertModel(bert_config(intermediate_size=48)).save_pretrained(tmp_path / "base")
    BertModel(bert_config(intermediate_size=48)).save_pretrained(tmp_path / "other")
    first = vectors.open(family / "sentiment", family / "base")
    second = vectors.open(tmp_path / "other", tmp_path / "base")
    with pytest.raises(UsageError, match=r"expected \[32\] as in sentiment"):
        survey([first, second])


def test_events_count_up(compare):
    events = []
    compare("sentiment-lora", "topics-lora", on_event=lambda *event: events.append(event))
    assert events == [("measuring", done, 4) for done in range(1, 5)]


def test_rows_hold_each_pair_once(compare):
    found = compare("sentiment", "topics", "sentiment-lora", metrics=["cosine"])
    rows = list(found.to_rows())
    pairs = list(itertools.combinations(found.names, 2))
    assert [(row["first"], row["second"]) for row in rows] == [p for p in pairs for _ in range(4)]
    assert rows[2]["module"] == QUERY
    assert (rows[2]["layer"], rows[2]["kind"]) == (1, "query")
    assert rows[2]["value"] == float(found["cosine"].sel(task="sentiment", other="topics")[2])
