from __future__ import annotations

import gzip

import pytest

from alliage.data.files import read_lines
from alliage.errors import AlliageError

TEXT = "text\tlabel\nété 夏\tx\n"


@pytest.mark.parametrize("name", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_wide_encodings_are_named_and_read_when_told(tmp_path, name, packed):
    path = tmp_path / ("train.tsv.gz" if packed else "train.tsv")
    data = TEXT.encode(name)
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(AlliageError, match=rf"found what looks like {name[:6].upper()}.*encoding:"):
        list(read_lines(path))
    assert [line for _, line in read_lines(path, name)] == TEXT.splitlines()


def test_other_encodings_are_read_when_told(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes("caf\xe9\r\nd\x85j\xe0".encode("latin-1"))
    assert list(read_lines(path, "latin-1")) == [(1, "café"), (2, "d\x85jà")]


def test_mixed_encodings_are_placed(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes("été\n".encode() + "été\n".encode("latin-1"))
    with pytest.raises(AlliageError) as caught:
        list(read_lines(path))
    assert str(caught.value).startswith(f"{path}, line 2: is not UTF-8: byte 0xe9 at 0.")
    assert "encoding: …" in str(caught.value)


def test_a_wrong_encoding_is_placed(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes(b"fine\n" * 3 + b"caf\xe9\n")
    with pytest.raises(AlliageError, match="is not ascii: byte 0xe9"):
        list(read_lines(path, "ascii"))
