"""Which tensors of a tuned model stand for which of the base's: tied and untied heads."""

import json

import pytest
import torch
from safetensors.torch import save_file

from alliage import vectors
from alliage.errors import AlliageError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def stored(folder, *names, **config):
    """A model of a single layer with these tensors beside it."""
    folder.mkdir()
    shapes = {"model.layers.0.mlp.up_proj.weight": (3, 4)} | dict.fromkeys(names, (5, 4))
    save_file({n: torch.ones(shape) for n, shape in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    return folder


def test_a_head_of_its_own_is_refused_where_the_base_ties_it(tmp_path):
    base = stored(tmp_path / "base", EMBEDDING, tie_word_embeddings=True)
    tuned = stored(tmp_path / "tuned", EMBEDDING, HEAD, tie_word_embeddings=False)
    said = f"{HEAD}: the base ties it to {EMBEDDING}, this model does not. Set tie_word_embeddings"
    with pytest.raises(AlliageError, match=said):
        vectors.open(tuned, base)


def test_a_tied_head_is_refused_where_the_base_has_its_own(tmp_path):
    base = stored(tmp_path / "base", EMBEDDING, HEAD, tie_word_embeddings=False)
    tuned = stored(tmp_path / "tuned", EMBEDDING, tie_word_embeddings=True)
    with pytest.raises(AlliageError) as caught:
        vectors.open(tuned, base)
    (problem,) = caught.value.problems
    assert problem.where == f"{tuned}: {HEAD}"
    assert problem.what == f"this model ties it to {EMBEDDING}, the base ({base}) does not."
    assert "Save the tuned model untied" in problem.fix


@pytest.mark.parametrize("stores", [(EMBEDDING,), (EMBEDDING, HEAD)])
@pytest.mark.parametrize("copies", [(EMBEDDING,), (EMBEDDING, HEAD)])
def test_who_ties_alike_may_store_either(tmp_path, stores, copies):
    base = stored(tmp_path / "base", *stores, tie_word_embeddings=True)
    tuned = stored(tmp_path / "tuned", *copies, tie_word_embeddings=True)
    vector = vectors.open(tuned, base)
    assert set(vector.shapes) == {"model.layers.0.mlp.up_proj.weight", EMBEDDING}
    assert not vector.heads


def test_a_classifier_needs_no_head_for_words(tmp_path):
    base = stored(tmp_path / "base", EMBEDDING, HEAD, tie_word_embeddings=False)
    tuned = stored(tmp_path / "tuned", EMBEDDING, "score.weight", tie_word_embeddings=True)
    assert vectors.open(tuned, base).heads == ("score.weight",)


MOOD = {"task": "mood", "labels": ["no", "yes"]}


@pytest.mark.parametrize(
    ("recorded", "other", "alike"),
    [
        (MOOD, MOOD, True),
        (MOOD, MOOD | {"labels": ["yes", "no"]}, False),
        (MOOD, MOOD | {"labels": ["no", "so"]}, False),
        (MOOD, {"task": "mood"}, False),
        (MOOD, MOOD | {"task": "film"}, False),
        (MOOD, {"labels": ["no", "yes"]}, True),
        ({"task": "stars"}, {"task": "stars"}, True),
    ],
)
def test_a_head_is_shared_where_task_and_labels_are_the_same(tmp_path, recorded, other, alike):
    models = [stored(tmp_path / name, "score.weight") for name in ("base", "tuned")]
    for folder, record in zip(models, (recorded, other), strict=True):
        (folder / "alliage.json").write_text(json.dumps(record))
    vector = vectors.open(models[1], models[0])
    assert ("score.weight" in vector.shapes) == alike
    assert vector.heads == (() if alike else ("score.weight",))
