"""Files that were made to harm, each found by `python -m tests.fuzz` or thought up beside it."""

import io
import json
import os
import struct
import time
import zipfile

import pytest
import safetensors
import torch
from safetensors.torch import save_file

import alliage
from alliage.checkpoints.adapter import parse_settings
from alliage.checkpoints.labels import config_labels
from alliage.checkpoints.names import align, is_conv1d, layer_of
from alliage.errors import AlliageError, UsageError
from alliage.vectors import open as open_vector
from tests.fuzz.pickle_files import payloads


def write(path, text, data=b""):
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape, end, name="t", dtype="F32"):
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


GOOD = json.dumps(entry([1], 4))


@pytest.mark.parametrize(
    "text",
    [
        GOOD.encode("utf-16"),
        GOOD.encode("utf-8-sig"),
        GOOD.replace('"t"', '"\\ud800"').encode(),
        GOOD.replace("}}", ', "more": NaN}}').encode(),
        GOOD.replace("[1]", "[1.0]").encode(),
        b'{"__metadata__": [], ' + GOOD[1:].encode(),
        b'{"__metadata__": {"format": 1}, ' + GOOD[1:].encode(),
        b'{"__metadata__": false, ' + GOOD[1:].encode(),
        json.dumps(entry([2**62, 2**62, 0], 0)).encode(),
    ],
    ids=[
        "utf-16",
        "bom",
        "half a character",
        "nan",
        "float",
        "list",
        "number",
        "false",
        "overflow",
    ],
)
def test_headers_that_the_reference_refuses_are_refused(tmp_path, text):
    path = write(tmp_path / "x.safetensors", text, b"\0" * 4)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(path.read_bytes())
    with pytest.raises(AlliageError, match="damaged or incomplete"):
        alliage.open(path)


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (GOOD[:-1] + ", " + GOOD[1:], 4, "the key 't' appears 2 times"),
        (json.dumps(entry([0, 2**62, 2**62], 0)), 0, "impossible shape"),
        (json.dumps(entry([0, 2**63], 0)), 0, "impossible shape"),
        (json.dumps(entry([1], 1, dtype="F8_E8M0")), 1, "unknown type 'F8_E8M0'"),
        ('{"t": ["F32", [1], [0, 4]]}', 4, "lacks dtype, shape or data_offsets"),
    ],
)
def test_headers_that_only_the_reference_takes_are_refused_for_a_reason(
    tmp_path, text, data, message
):
    """Which of two tensors was meant, or what torch cannot hold, the reference does not ask."""
    path = write(tmp_path / "x.safetensors", text.encode(), b"\0" * data)
    safetensors.deserialize(path.read_bytes())
    with pytest.raises(AlliageError, match=message):
        alliage.open(path)


def test_a_shape_of_many_large_sizes_is_refused_at_once(tmp_path):
    """Their product would have millions of digits; the message shows a few of them."""
    path = write(tmp_path / "x.safetensors", json.dumps(entry([2**62] * 300_000, 0)).encode())
    with pytest.raises(AlliageError, match="impossible shape") as caught:
        alliage.open(path)
    assert len(str(caught.value)) < 1000


def test_of_a_million_problems_a_hundred_are_named(tmp_path):
    header = {f"{number:x}": 0 for number in range(20_000)}
    for entries in (header, {name: {**entry([1], 4)["t"]} for name in header}):
        path = write(tmp_path / "x.safetensors", json.dumps(entries).encode(), b"\0" * 4)
        with pytest.raises(AlliageError) as caught:
            alliage.open(path)
        assert len(caught.value.problems) == 100


def test_names_of_control_characters_and_all_scripts_are_kept(tmp_path):
    names = ["a\nb", "\x1b[2J", "\0", "", " ", "模型", "e\u0301", "\u202e", "x" * 100_000]
    header = {}
    for position, name in enumerate(names):
        header |= {
            name: {"dtype": "U8", "shape": [1], "data_offsets": [position, position + 1]},
        }
    path = write(tmp_path / "x.safetensors", json.dumps(header).encode(), bytes(range(len(names))))
    with alliage.open(path) as checkpoint:
        assert {name: int(checkpoint.read(name)) for name in checkpoint.specs()} == {
            name: position for position, name in enumerate(names)
        }


def unusual(place, kind):
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "hole":
        with place.open("wb") as file:
            file.truncate(2**40)
    else:
        place.symlink_to(
            {"device": "/dev/zero", "loop": place.name, "memory": "/proc/self/mem"}[kind]
        )


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "loop", "hole", "memory"])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "x.safetensors"],
)
def test_weights_that_are_no_files_are_refused_and_never_waited_for(tmp_path, name, kind):
    unusual(tmp_path / name, kind)
    for ref in (tmp_path, tmp_path / name):
        with pytest.raises(AlliageError):
            alliage.open(ref)


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_settings_of_a_terabyte_are_not_read(tmp_path, name):
    for weights in ("model.safetensors", "adapter_model.safetensors"):
        save_file({"t": torch.zeros(1)}, tmp_path / weights)
    unusual(tmp_path / name, "hole")
    with pytest.raises(AlliageError, match="larger than"):
        alliage.open(tmp_path)


@pytest.mark.parametrize(
    "ref", ["~nobody-such/x", "a" * 5000, "a\0b", "/dev/zero", "\ud800", "é" * 200]
)
def test_references_that_can_be_no_path(ref):
    with pytest.raises(UsageError):
        alliage.open(ref)


def index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("x" * 300 + ".safetensors", "no file there"),
        ("a\0.safetensors", "no file there"),
        ("fifo.safetensors", "no file there"),
        ("model.safetensors.index.json", "expected a weight file"),
        ("..", "expected a weight file"),
        ("", "expected a weight file"),
        (["a"] * 99_999, "expected a weight file"),
        (None, "expected a weight file"),
    ],
    ids=str,
)
def test_an_index_that_names_no_file_of_weights(tmp_path, shard, message):
    unusual(tmp_path / "fifo.safetensors", "fifo")
    with pytest.raises(AlliageError, match=message) as caught:
        alliage.open(index(tmp_path, {"t": shard}))
    assert len(str(caught.value)) < 1000


def test_half_characters_in_settings_are_refused_before_anything_is_made_of_them(tmp_path):
    save_file({"t": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "\\ud800"}')
    with pytest.raises(AlliageError, match="half a character"):
        alliage.open(tmp_path)


@pytest.mark.parametrize("value", [[], {}, ["gpt2"], 5, None, True, "x" * 5000])
def test_configurations_of_any_type_are_read_for_what_they_say(tmp_path, value):
    tensors = {name: torch.zeros(2, 2) for name in ("wte.weight", "lm_head.weight")}
    save_file(tensors, tmp_path / "model.safetensors")
    for key in ("model_type", "architectures", "id2label", "label2id"):
        config = {"tie_word_embeddings": True, key: value}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with alliage.open(tmp_path) as checkpoint:
            assert checkpoint.ties == {"lm_head.weight": "wte.weight"}
            assert config_labels(checkpoint.config) is None
    assert not is_conv1d(value, "h.0.attn.c_attn.weight")


def test_numbers_of_thousands_of_digits_are_no_layers_and_no_labels():
    assert layer_of("layers." + "9" * 5000 + ".weight") is None
    assert config_labels({"id2label": {"9" * 5000: "a"}}) is None


LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": True}, "positive integer, found True"),
        ({"r": 10**400}, "positive integer"),
        ({"lora_alpha": float("nan")}, "number, found nan"),
        ({"lora_alpha": 10**400}, "must be a number"),
        ({"lora_alpha": False}, "must be a number"),
        ({"base_model_name_or_path": ["x"] * 999}, "a name or a path"),
        ({"base_model_name_or_path": 5}, "found 5"),
        ({"alpha_pattern": {"q": float("nan")}}, "expected a number"),
        ({"rank_pattern": {"q": 10**400}}, "expected a number"),
        ({"rank_pattern": {"(?i)q": 2}}, "no regular expression"),
        ({"rank_pattern": {"q{99999999999}": 2}}, "no regular expression"),
        ({"rank_pattern": {"(a+)+": 2}}, "for ever"),
        ({"rank_pattern": {"(a|a)" * 40: 2}}, "for ever"),
        ({"rank_pattern": {"a?" * 40 + "a" * 40: 2}}, "for ever"),
        ({"rank_pattern": {r"[)](\w*\.){9}x": 2}}, "for ever"),
    ],
    ids=str,
)
def test_adapter_settings_that_would_end_in_nonsense_or_never(change, message):
    with pytest.raises(AlliageError, match=message) as caught:
        parse_settings(LORA | change, "adapter_config.json")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("pattern", "module", "expected"),
    [
        ("layers.0.q_proj", "model.layers.0.q_proj", 8),
        ("q_proj", "model.layers.0.xq_proj", 2),
        (r"^model\.layers\.(0|1)\.q_proj", "model.layers.1.q_proj", 8),
        (r"layers\.\d+\.[qk]_proj", "model.layers.17.k_proj", 8),
        (r".*\.(q|k|v)_proj", "model.layers.17.o_proj", 2),
        (r"[*+?{(]+(?:a|b)", "x.(*+a", 8),
    ],
)
def test_ordinary_patterns_keep_their_meaning(pattern, module, expected):
    settings = parse_settings(LORA | {"rank_pattern": {pattern: 8}}, "adapter_config.json")
    assert settings.expected_rank(module) == expected


@pytest.mark.parametrize("packed", [False, True], ids=["bare", "in an archive"])
def test_no_way_of_calling_a_function_from_a_pickle_is_taken(tmp_path, packed):
    canary, path = tmp_path / "canary", tmp_path / "pytorch_model.bin"
    for payload in payloads(canary):
        path.write_bytes(payload)
        if packed:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", payload)
                archive.writestr("archive/version", b"3\n")
        with pytest.raises(AlliageError, match=r"pytorch_model\.bin"):
            alliage.open(tmp_path)
        assert not canary.exists()


def saved(path, content):
    torch.save(content, path / "pytorch_model.bin")
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({5: torch.zeros(1), "a": torch.zeros(1)}, "no plain state dict"),
        ({"\ud800": torch.zeros(1)}, "no plain state dict"),
        ({"a": torch.zeros(2, device="meta")}, "expected a dense one"),
        ({"a": torch.eye(3).to_sparse()}, "expected a dense one"),
        ({"a": torch.zeros(1).expand(1000, 1000)}, "claims 4000000 bytes and has 4"),
    ],
    ids=str,
)
def test_state_dicts_of_what_is_no_plain_tensor(tmp_path, content, message):
    with pytest.raises(AlliageError, match=message):
        alliage.open(saved(tmp_path, content))


def repacked(path, change, how=zipfile.ZIP_STORED):
    """The archive again with its members changed."""
    file = path / "pytorch_model.bin"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    file.write_bytes(buffer.getvalue())
    return path


def test_a_record_shorter_than_its_tensor_is_not_read_past_its_end(tmp_path):
    """Mapped into memory, the tensor would go on with the archive's own bytes."""
    saved(tmp_path, {"a": torch.ones(100), "b": torch.zeros(100)})
    repacked(tmp_path, lambda name, content: content[:40] if name.endswith("data/0") else content)
    with pytest.raises(AlliageError, match="not the archive's records"):
        alliage.open(tmp_path)


def test_a_compressed_archive_is_not_unfolded(tmp_path):
    saved(tmp_path, {"a": torch.ones(100)})
    repacked(tmp_path, lambda name, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(AlliageError, match="compressed"):
        alliage.open(tmp_path)


def test_a_record_of_two_sizes_is_refused(tmp_path):
    """torch reads less than it allots, and takes what was in memory for the rest."""
    file = saved(tmp_path, {"a": torch.ones(100)}) / "pytorch_model.bin"
    content = bytearray(file.read_bytes())
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"pytorch_model/data/0")) + 20
    assert content[place : place + 8] == struct.pack("<II", 400, 400)
    content[place : place + 4] = struct.pack("<I", 40)
    file.write_bytes(content)
    with pytest.raises(AlliageError, match="two sizes"):
        alliage.open(tmp_path)


def test_a_record_without_its_own_header_is_refused(tmp_path):
    """Where its bytes begin stands there."""
    file = saved(tmp_path, {"a": torch.ones(100)}) / "pytorch_model.bin"
    content = bytearray(file.read_bytes())
    content[content.index(b"pytorch_model/data/0") - 30] ^= 1
    file.write_bytes(content)
    with pytest.raises(AlliageError, match="no header of its own"):
        alliage.open(tmp_path)


def test_views_of_one_storage_and_odd_strides_are_read_as_torch_reads_them(tmp_path):
    whole = torch.arange(12.0)
    tensors = {
        "part": whole[3:7], "turned": whole.reshape(3, 4).t(), "every_other": whole[::2],
        "one": torch.ones(1).expand(1, 1), "empty": torch.ones(0, 3), "scalar": torch.tensor(2.0),
    }  # fmt: skip
    with alliage.open(saved(tmp_path, tensors)) as checkpoint:
        for name, tensor in tensors.items():
            assert torch.equal(checkpoint.read(name), tensor)


def test_a_bin_that_shrinks_while_it_is_read(tmp_path):
    """Its pages are mapped: touching what is gone would kill the process."""
    saved(tmp_path, {"a": torch.zeros(100_000)})
    with alliage.open(tmp_path) as checkpoint:
        os.truncate(tmp_path / "pytorch_model.bin", 5000)
        with pytest.raises(AlliageError, match="became shorter"):
            checkpoint.read("a")


def test_names_that_share_nothing_are_compared_in_no_time():
    """Each with a prefix of its own, which might be the one that the models differ by."""
    one, other = ([f"{side}{k}.layers.weight" for k in range(20_000)] for side in "ab")
    started = time.process_time()
    assert align(one, other).pairs == {}
    assert time.process_time() - started < 10


def test_the_nearest_names_are_sought_for_the_first_problems_only(tmp_path):
    """Among thousands of tensors of another architecture each search takes a second."""
    for name, part in (("base", "encoder"), ("tuned", "decoder")):
        tensors = {f"{part}.layers.{k}.weight": torch.zeros(1) for k in range(300)}
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    with pytest.raises(AlliageError) as caught:
        open_vector(tmp_path / "tuned", tmp_path / "base")
    assert len(caught.value.problems) == 600
    assert 0 < sum("Did you mean" in str(problem) for problem in caught.value.problems) < 20
