import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from alliage import vectors
from alliage.errors import AlliageError, UsageError


@pytest.fixture(scope="module")
def tensors(family):
    return {
        name: load_file(family / name / "model.safetensors")
        for name in ("base", "sentiment", "topics")
    }


def test_delta_is_tuned_minus_base(family, tensors):
    vector = vectors.open(family / "sentiment", family / "base")
    assert set(vector.shapes) == set(tensors["base"])
    assert sorted(vector.heads) == ["classifier.bias", "classifier.weight"]
    for name, base in tensors["base"].items():
        expected = tensors["sentiment"]["bert." + name] - base
        assert torch.equal(vector.delta(name), expected)
        middle = expected.numel() // 2
        assert torch.equal(vector.block(name, 1, middle), expected.reshape(-1)[1:middle])


def test_arithmetic(family, tensors):
    first, second = (vectors.open(family / n, family / "base") for n in ("sentiment", "topics"))
    combined = 0.5 * (first - second) + first
    name = "encoder.layer.1.output.dense.weight"
    base = tensors["base"][name]
    a, b = (tensors[task]["bert." + name] - base for task in ("sentiment", "topics"))
    torch.testing.assert_close(combined.delta(name), 1.5 * a - 0.5 * b)
    torch.testing.assert_close((-combined).delta(name), 0.5 * b - 1.5 * a)
    assert first.delta(name).equal(a)  # the terms are as they were


def test_dense_and_low_rank_vectors_add_up(family):
    dense = vectors.open(family / "sentiment", family / "base")
    low_rank = vectors.open(family / "topics-lora", family / "base")
    total = dense + low_rank
    changed = f"{low_rank.modules[0]}.weight"
    assert torch.equal(total.delta(changed), dense.delta(changed) + low_rank.delta(changed))
    other = "embeddings.word_embeddings.weight"
    assert torch.equal(total.delta(other), dense.delta(other))


def test_saved_and_loaded(family, tmp_path):
    vector = vectors.open(family / "sentiment", family / "base")
    vectors.save(vector, tmp_path / "stored")
    loaded = vectors.load(tmp_path / "stored")
    assert loaded.name == "sentiment"
    assert loaded.shapes == vector.shapes
    for name in vector.shapes:
        assert torch.equal(loaded.delta(name), vector.delta(name))
    raw = load_file(tmp_path / "stored" / "vector.safetensors")
    assert raw.keys() == vector.shapes.keys()
    with pytest.raises(UsageError, match="exists already"):
        vectors.save(vector, tmp_path / "stored")


def test_weights_are_no_saved_vector(family, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "vector.safetensors")
    with pytest.raises(AlliageError, match="no saved task vector"):
        vectors.load(tmp_path)


def variant(family, tmp_path, change, config=None):
    """A copy of the sentiment model with some tensors changed."""
    tensors = load_file(family / "sentiment" / "model.safetensors")
    change(tensors)
    settings = json.loads((family / "sentiment" / "config.json").read_text())
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings | (config or {})))
    return tmp_path


QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({QUERY: torch.zeros(3, 16)}), r"shape \[16, 16\], found \[3, 16\]"),
        (lambda t: t.pop(QUERY), "is in the base .* but not in the tuned model"),
        (lambda t: t.update({"bert.extra.weight": torch.zeros(2)}), "is not in the base"),
        (lambda t: t.update({QUERY: t[QUERY].to(torch.int8)}), "Quantised"),
    ],
    ids=["shape", "missing", "extra", "quantised"],
)
def test_misfits_name_file_and_tensor(family, tmp_path, change, message):
    folder = variant(family, tmp_path, change)
    with pytest.raises(AlliageError, match=message) as caught:
        vectors.open(folder, family / "base")
    assert str(folder) in str(caught.value)


def test_all_misfits_at_once(family, tmp_path):
    def change(tensors):
        tensors[QUERY] = torch.zeros(3, 16)
        del tensors["bert.encoder.layer.1.attention.self.key.bias"]
        tensors["bert.extra.weight"] = torch.zeros(2)

    with pytest.raises(AlliageError) as caught:
        vectors.open(variant(family, tmp_path, change), family / "base")
    assert len(caught.value.problems) == 3


def test_integer_buffers_and_absent_poolers_take_no_part(family, tmp_path):
    def change(tensors):
        tensors["bert.embeddings.position_ids"] = torch.arange(32)[None]
        del tensors["bert.pooler.dense.weight"], tensors["bert.pooler.dense.bias"]

    vector = vectors.open(variant(family, tmp_path, change), family / "base")
    assert not any("pooler" in name or "position_ids" in name for name in vector.shapes)


def test_a_shared_head_is_merged_only_with_shared_labels(family, tmp_path):
    same = vectors.open(family / "sentiment", family / "sentiment")
    assert "classifier.weight" in same.shapes
    renamed = variant(family, tmp_path, lambda t: None, {"id2label": {"0": "no", "1": "yes"}})
    other = vectors.open(renamed, family / "sentiment")
    assert "classifier.weight" in other.heads


def test_a_full_model_needs_a_base(family):
    with pytest.raises(UsageError, match="no base given"):
        vectors.open(family / "sentiment")


def test_unknown_parameters_get_the_nearest_name(family):
    vector = vectors.open(family / "sentiment", family / "base")
    with pytest.raises(KeyError, match=r"embeddings\.LayerNorm\.weight"):
        vector.delta("embeddings.LayerNrm.weight")
