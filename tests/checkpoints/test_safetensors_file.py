import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import alliage
from alliage.errors import AlliageError


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(begin, end, shape=None, dtype="F32"):
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reads_what_the_reference_library_wrote(tmp_path, dtype):
    tensors = {
        "matrix": (torch.arange(12).reshape(3, 4) % 2).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, 3).to(dtype),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with alliage.open(tmp_path / "x.safetensors") as checkpoint:
        for name, expected in tensors.items():
            found = checkpoint.read(name)
            assert found.dtype == dtype
            assert found.shape == expected.shape
            assert torch.equal(found, expected)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_any_flat_slice(tmp_path_factory, start, stop):
    start, stop = min(start, stop), max(start, stop)
    folder = tmp_path_factory.getbasetemp()
    tensor = torch.arange(60, dtype=torch.float32).reshape(3, 20)
    if not (folder / "slices.safetensors").exists():
        save_file({"t": tensor, "u": -tensor}, folder / "slices.safetensors")
    with alliage.open(folder / "slices.safetensors") as checkpoint:
        assert torch.equal(checkpoint.read("u", start, stop), -tensor.reshape(-1)[start:stop])


def test_a_slice_outside_the_tensor_is_refused(tmp_path):
    save_file({"t": torch.zeros(4)}, tmp_path / "x.safetensors")
    with alliage.open(tmp_path / "x.safetensors") as checkpoint:
        for start, stop in [(-1, 2), (0, 5), (3, 2)]:
            with pytest.raises(IndexError):
                checkpoint.read("t", start, stop)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated one: 0 bytes"),
        (b"abc", "truncated one: 3 bytes"),
        (struct.pack("<Q", 2**60) + b"{}", "header length 1152921504606846976"),
        (struct.pack("<Q", 3) + b"{x}", "not valid JSON"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "not valid JSON"),
        (struct.pack("<Q", 16) + b'{"a": 1, "a": 2}', "'a' appears 2 times"),
    ],
)
def test_damaged_headers(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(AlliageError, match=message) as caught:
        alliage.open(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"t": {"dtype": "F32", "shape": [1]}}, "lacks dtype, shape or data_offsets"),
        ({"t": entry(0, 4, dtype="F31")}, "unknown type 'F31'"),
        ({"t": entry(0, 4, shape=[-1])}, "impossible shape"),
        ({"t": entry(0, 4, shape=[True])}, "impossible shape"),
        ({"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**70]}}, "impossible offsets"),
        ({"t": entry(0, 4, shape=[2])}, "takes 8 bytes"),
        ({"t": entry(0, 4), "u": entry(0, 4)}, "overlap"),
        ({"t": entry(0, 4), "u": entry(8, 12)}, "4 unclaimed bytes"),
        ({"t": entry(0, 16)}, "holds 12 of 16 bytes of data; 1 tensors are cut off, the first t"),
        ({"t": entry(0, 4)}, "8 bytes after the last tensor"),
        ({"__metadata__": [1], "t": entry(0, 12)}, "__metadata__"),
    ],
)
def test_headers_that_contradict_themselves_or_the_file(tmp_path, header, message):
    path = write(tmp_path / "x.safetensors", header, b"\0" * 12)
    with pytest.raises(AlliageError, match=message):
        alliage.open(path)


def test_all_problems_of_a_header_are_reported_together(tmp_path):
    header = {"t": entry(0, 4, dtype="F31"), "u": entry(0, 4, shape=[7]), "v": {"dtype": "F32"}}
    path = write(tmp_path / "x.safetensors", header, b"\0" * 4)
    with pytest.raises(AlliageError) as caught:
        alliage.open(path)
    assert len(caught.value.problems) == 3


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused_with_a_message(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(content)
    try:
        alliage.open(path).close()
        refusal = None
    except AlliageError as error:
        refusal = str(error)
    if refusal is None:  # what we accept, the reference library accepts
        load_file(path)
    else:
        assert str(path) in refusal


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    save_file({"t": torch.zeros(100)}, tmp_path / "x.safetensors")
    with alliage.open(tmp_path / "x.safetensors") as checkpoint:
        with (tmp_path / "x.safetensors").open("r+b") as file:
            file.truncate(200)
        with pytest.raises(AlliageError, match=r"t: ends after .* became shorter"):
            checkpoint.read("t")
