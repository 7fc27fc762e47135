"""Inputs behind merged layers, by their definition: transformers' models with merged weights."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage.checkpoints.statistics import open_statistics
from alliage.errors import AlliageError, UsageError
from alliage.evaluation import Misfit
from alliage.merging import parse_recipe, plan, run
from alliage.statistics import collect_regmean, collect_regmean_plus_plus
from tests.statistics.models import MOOD, SHAPES, STORIES, SUBJECT
from tests.statistics.test_collecting import layer_inputs, model_of

TASKS = {"sentiment": MOOD, "topics": SUBJECT}
ALPHA = 0.8


@pytest.fixture(scope="module")
def collected(family, tmp_path_factory):
    """The folder of the inputs, beside the merged body."""
    home = tmp_path_factory.mktemp("layerwise")
    for seed, name in enumerate(TASKS):
        shutil.copytree(family / name, home / name)
        model, _ = model_of(home / name)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
        model.save_pretrained(home / name)
    records = collect_regmean_plus_plus(
        [home / name for name in TASKS], list(TASKS.values()), home / "inputs", alpha=ALPHA
    )
    assert [record.out.name for record in records] == [
        "sentiment.safetensors",
        "topics.safetensors",
    ]
    models = [
        {"model": str(home / name), "statistics": str(home / "inputs" / f"{name}.safetensors")}
        for name in TASKS
    ]
    content = {"method": "regmean_plus_plus", "models": models, "base": str(family / "base")}
    run(plan(parse_recipe(content | {"parameters": {"alpha": ALPHA}})), home / "merged")
    return home


BLOCKS = ("bert.encoder.layer.0.", "bert.encoder.layer.1.", "bert.pooler.")


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_sees_what_the_merged_ones_below_it_give(collected, name, block):
    """The merge's own output, with the model's own block in it, run by transformers."""
    model, tokenizer = model_of(collected / name)
    merged = load_file(collected / "merged" / "model.safetensors")
    state = {
        key: tensor if key.startswith((block, "classifier")) else merged[key.removeprefix("bert.")]
        for key, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    texts = [example.inputs[0] for example in TASKS[name].splits["train"]]
    inputs = layer_inputs(model, tokenizer, texts)
    found = load_file(collected / "inputs" / f"{name}.safetensors")
    layers = [layer for layer in inputs if layer.startswith(block)]
    assert layers
    for layer in layers:
        rows = inputs[layer]
        gram = found[f"{layer}.weight"].numpy()
        np.testing.assert_allclose(gram, rows.T @ rows / len(rows), rtol=1e-3, atol=1e-5)
    assert "classifier.weight" not in found


def test_they_are_other_inputs_than_each_models_own(collected, tmp_path):
    collect_regmean(collected / "topics", SUBJECT, tmp_path / "own.safetensors")
    own = load_file(tmp_path / "own.safetensors")
    found = load_file(collected / "inputs" / "topics.safetensors")
    last = "bert.encoder.layer.1.output.dense.weight"
    assert (own[last] - found[last]).norm() > 0.05 * own[last].norm()


def test_the_file_says_which_merge_it_is_of(collected):
    origin = open_statistics(collected / "inputs" / "topics.safetensors").origin
    assert origin.kind == "regmean_plus_plus"
    assert origin.parameters == {"alpha": ALPHA}
    assert len(origin.merged_with) == 2
    assert origin.digests == origin.merged_with[1]


@pytest.mark.parametrize(
    ("name", "task", "blocks"),
    [("gpt", STORIES, 2), ("t5", STORIES, 4), ("vit", SHAPES, 2)],
    ids=["gpt", "t5", "vit"],
)
def test_merges_of_every_form_solve_the_equations(zoo, tmp_path, name, task, blocks):
    """GPT-2 stores weights the other way round; T5's blocks are an encoder's and a decoder's."""
    for seed, copy in enumerate("ab"):
        shutil.copytree(zoo / name, tmp_path / copy)
        stored = load_file(zoo / name / "model.safetensors")
        draw = torch.Generator().manual_seed(seed)
        moved = {
            key: tensor + 0.05 * torch.randn(tensor.shape, generator=draw)
            for key, tensor in stored.items()
        }
        save_file(moved, tmp_path / copy / "model.safetensors", {"format": "pt"})
    refs = [tmp_path / copy for copy in "ab"]
    records = collect_regmean_plus_plus(refs, [task] * 2, tmp_path / "inputs")
    assert records[0].passes == blocks
    models = [
        {"model": str(ref), "statistics": str(record.out)}
        for ref, record in zip(refs, records, strict=True)
    ]
    run(plan(parse_recipe({"method": "regmean_plus_plus", "models": models})), tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    a, b = (load_file(ref / "model.safetensors") for ref in refs)
    known = [load_file(record.out) for record in records]
    turned = open_statistics(records[0].out).origin.transposed
    assert len(known[0]) >= 8
    for key in known[0]:
        grams = [each[key].double().numpy() for each in known]
        reduced = [0.9 * gram + 0.1 * np.diag(np.diag(gram)) for gram in grams]
        weights = [w[key].double().numpy() for w in (a, b)]
        weights = weights if key in turned else [weight.T for weight in weights]
        right = sum(gram @ weight for gram, weight in zip(reduced, weights, strict=True))
        found = merged[key].double().numpy()
        found = found if key in turned else found.T
        bound = 1e-5 * np.abs(right).max()
        np.testing.assert_allclose(sum(reduced) @ found, right, rtol=0, atol=bound)
        dead = np.diag(sum(reduced)) == 0  # units of T5 that no text makes positive
        np.testing.assert_allclose(found[dead], sum(weights)[dead] / 2, atol=1e-6)


def test_what_cannot_be_done_is_refused_and_leaves_nothing(family, tmp_path):
    sentiment, topics, out = family / "sentiment", family / "topics", tmp_path / "inputs"
    with pytest.raises(UsageError, match="2 models, but 1 tasks"):
        collect_regmean_plus_plus([sentiment, topics], [MOOD], out)
    with pytest.raises(UsageError, match=r"alpha: must be in \[0, 1\], got 2"):
        collect_regmean_plus_plus([sentiment], [MOOD], out, alpha=2)
    with pytest.raises(Misfit):
        collect_regmean_plus_plus([sentiment, topics], [MOOD, MOOD], out)
    unlike = tmp_path / "unlike"
    from transformers import BertForSequenceClassification

    from tests.conftest import bert_config, save_tokenizer

    labels = dict(enumerate(MOOD.labels))
    config = bert_config(num_hidden_layers=1, id2label=labels, label2id={})
    BertForSequenceClassification(config).save_pretrained(unlike)
    save_tokenizer(unlike)
    task = replace(MOOD, labels=tuple(labels.values()))
    with pytest.raises(AlliageError, match=r"unlike: has another bert\.encoder\.layer\.1"):
        collect_regmean_plus_plus([sentiment, unlike], [MOOD, task], out)
    assert [path.name for path in tmp_path.iterdir()] == ["unlike"]
