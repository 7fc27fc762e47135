import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import alliage
from alliage.checkpoints import provenance
from alliage.checkpoints.writer import OutputFolder, TensorWriter, plan_layout
from alliage.errors import CheckFailed, UsageError

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.arange(5, dtype=torch.bfloat16),
    "n": torch.tensor(7),
    "void": torch.zeros(0, 4),
}
CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}


def write(folder, **options):
    layout = plan_layout(
        ((name, CODES[t.dtype], tuple(t.shape)) for name, t in TENSORS.items()), **options
    )
    with TensorWriter(folder, layout) as writer:
        for name, tensor in TENSORS.items():
            raw = tensor.reshape(-1).view(torch.uint8).numpy().data.cast("B")
            half = tensor.numel() // 2
            size = tensor.element_size()
            writer.write(name, half, raw[half * size :])
            writer.write(name, 0, raw[: half * size])
    return layout


def test_the_reference_library_reads_it(tmp_path):
    write(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_stay_below_their_limit(tmp_path):
    write(tmp_path, max_shard_bytes=24)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in TENSORS.values())
    assert set(index["weight_map"].values()) == {
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    }
    with alliage.open(tmp_path) as checkpoint:
        for name, tensor in TENSORS.items():
            assert torch.equal(checkpoint.read(name), tensor)


def test_a_forgotten_byte_is_noticed(tmp_path):
    layout = plan_layout([("a", "F32", (4,))])
    with (
        pytest.raises(RuntimeError, match="8 bytes of the output were never written"),
        TensorWriter(tmp_path, layout) as writer,
    ):
        writer.write("a", 2, memoryview(bytes(8)))
    (tmp_path / "other").mkdir()
    with (
        pytest.raises(ValueError, match="do not fit"),
        TensorWriter(tmp_path / "other", layout) as w,
    ):
        w.write("a", 3, memoryview(bytes(8)))


def test_output_appears_only_when_complete(tmp_path):
    out = tmp_path / "deep" / "out"
    with OutputFolder(out) as folder:
        folder.add_text("a.txt", "x")
        assert not out.exists()
    assert (out / "a.txt").read_text() == "x"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing_behind(tmp_path):
    def fail():
        with OutputFolder(tmp_path / "out") as folder:
            folder.add_text("a.txt", "x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused(tmp_path):
    with pytest.raises(UsageError, match="exists already"):
        OutputFolder(tmp_path)
    with pytest.raises(UsageError, match="exists already"), OutputFolder(tmp_path / "out"):
        (tmp_path / "out").mkdir()  # someone else's, meanwhile
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_provenance_notices_every_change(tmp_path, family):
    with alliage.open(family / "base") as base, OutputFolder(tmp_path / "out") as folder:
        folder.add_text("w.txt", "weights")
        record = provenance.describe(
            "test", {"a": 1}, [provenance.describe_input("base", base)],
            folder.staging,
        )  # fmt: skip
        folder.add_json(provenance.FILE, record)
    out = tmp_path / "out"
    assert provenance.verify(out) == (3, [])
    (out / "other.safetensors").write_bytes(b"weights")
    (out / "notes.txt").write_text("of the user")
    (_, [unknown]) = provenance.verify(out)
    assert str(unknown).startswith(f"{out / 'other.safetensors'}: weights that the record does not")
    (out / "other.safetensors").unlink()
    record = json.loads((out / provenance.FILE).read_text())
    (out / provenance.FILE).write_text(json.dumps(record | {"outputs": []}))
    with pytest.raises(CheckFailed, match="names no output"):
        provenance.verify(out)
    (out / provenance.FILE).write_text(json.dumps(record))
    (out / "w.txt").write_text("WEIGHTS")
    (_, [changed]) = provenance.verify(out)
    assert "w.txt: the output changed: recorded SHA-256" in str(changed)
    (out / "w.txt").write_text("longer than before")
    assert "recorded 7 bytes, found 18" in str(provenance.verify(out)[1][0])
    (out / "w.txt").unlink()
    record["recipe"]["a"] = 2
    (out / provenance.FILE).write_text(json.dumps(record))
    messages = [str(problem) for problem in provenance.verify(out)[1]]
    assert any("the recipe was edited" in message for message in messages)
    assert any("w.txt: the output is gone" in message for message in messages)


def test_only_what_alliage_wrote_can_be_verified(tmp_path):
    with pytest.raises(UsageError, match=r"no alliage\.json"):
        provenance.verify(tmp_path)
