"""Remembered digests against hashlib, while files change under them."""

import hashlib
import os
import threading
import time

import pytest

from alliage.checkpoints import digests
from alliage.checkpoints.digests import begun_early, recomputed, sha256

SIZE = 2**20 + 7


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty memory, of this process and on disk."""
    monkeypatch.setenv("ALLIAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_found", {})
    return tmp_path / "cache" / "sha256"


@pytest.fixture
def hashed(monkeypatch):
    """The paths whose bytes were read, in order."""
    seen = []

    def reading(path, whole=recomputed):
        seen.append(path)
        return whole(path)

    monkeypatch.setattr(digests, "recomputed", reading)
    return seen


@pytest.fixture
def settled(monkeypatch):
    """Files just written count as old."""
    monkeypatch.setattr(digests, "_SETTLED", -1.0)


def another_process(monkeypatch):
    monkeypatch.setattr(digests, "_found", {})


def write(path, seed=0, size=SIZE):
    content = hashlib.shake_128(bytes([seed])).digest(size)
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_an_unchanged_file_is_hashed_once(tmp_path, monkeypatch, hashed, settled, cache):
    path, expected = write(tmp_path / "a")
    assert sha256(path) == sha256(path) == expected
    another_process(monkeypatch)
    assert sha256(path) == expected
    assert hashed == [path]
    assert [note.read_text() for note in cache.iterdir()] == [expected]


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_changed_file_is_hashed_again_though_size_and_time_say_otherwise(
    tmp_path, monkeypatch, hashed, settled, how
):
    path, first = write(tmp_path / "a", 1)
    before = path.stat()
    assert sha256(path) == first
    time.sleep(0.02)  # a tick of the file system's clock
    if how == "in place":
        _, second = write(path, 2)
    else:
        other, second = write(tmp_path / "b", 2)
        other.rename(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert sha256(path) == second != first
    another_process(monkeypatch)
    assert sha256(path) == second
    assert len(hashed) == 2


def test_a_file_that_just_changed_is_not_remembered_on_disk(tmp_path, monkeypatch, hashed, cache):
    path, expected = write(tmp_path / "a")
    assert sha256(path) == expected
    assert not cache.exists()
    another_process(monkeypatch)
    assert sha256(path) == expected
    assert hashed == [path, path]


def test_a_young_file_that_changes_within_a_tick_of_the_clock_is_hashed_again(
    tmp_path, monkeypatch
):
    """The file system's clock, stopped: nothing that it knows tells the two apart."""
    path, first = write(tmp_path / "a", 1)
    status = path.stat()
    monkeypatch.setattr(type(path), "stat", lambda self, **_: status)
    assert sha256(path) == first
    _, second = write(path, 2)
    assert sha256(path) == second


def test_small_files_are_not_remembered(tmp_path, hashed, settled, cache):
    path, expected = write(tmp_path / "a", size=1000)
    assert sha256(path) == sha256(path) == expected
    assert hashed == [path, path]
    assert not cache.exists()


@pytest.mark.parametrize("obstacle", ["file", "read-only", "note is a folder"])
def test_a_memory_that_cannot_be_written_is_no_error(
    tmp_path, monkeypatch, hashed, settled, cache, obstacle
):
    path, expected = write(tmp_path / "a")
    if obstacle == "file":
        cache.parent.write_text("in the way")
    elif obstacle == "read-only":
        monkeypatch.setattr(digests, "cache_folder", lambda: tmp_path.__class__("/proc/self"))
    else:
        sha256(path)
        (note,) = cache.iterdir()
        note.unlink()
        note.mkdir()
        another_process(monkeypatch)
        hashed.clear()
    assert sha256(path) == expected
    assert hashed == [path]
    if obstacle == "note is a folder":
        note.rmdir()
        assert list(cache.iterdir()) == []  # and no draft is left


@pytest.mark.parametrize("note", [b"", b"0" * 63, b"\xff" * 64, b"z" * 64, b"A" * 64])
def test_a_damaged_note_is_not_believed(tmp_path, monkeypatch, hashed, settled, cache, note):
    path, expected = write(tmp_path / "a")
    sha256(path)
    (file,) = cache.iterdir()
    file.write_bytes(note)
    another_process(monkeypatch)
    assert sha256(path) == expected
    assert file.read_text() == expected


def test_two_threads_hash_a_file_once(tmp_path, monkeypatch, settled):
    path, expected = write(tmp_path / "a")
    entered, go_on, reads = threading.Event(), threading.Event(), []

    def slowly(path, whole=recomputed):
        reads.append(path)
        entered.set()
        go_on.wait(10)
        return whole(path)

    monkeypatch.setattr(digests, "recomputed", slowly)
    found = []
    threads = [threading.Thread(target=lambda: found.append(sha256(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    go_on.set()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
    assert reads == [path]


def test_a_file_that_could_not_be_read_is_tried_again(tmp_path, monkeypatch, settled):
    path, expected = write(tmp_path / "a")

    def failing(path):
        raise OSError("gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(digests, "recomputed", failing)
        with pytest.raises(OSError, match="gone for a moment"):
            sha256(path)
    assert sha256(path) == expected


def test_hashing_begun_early_is_not_done_twice(tmp_path, hashed):
    paths = [write(tmp_path / str(number), number)[0] for number in range(3)]
    with begun_early([*paths, tmp_path / "missing"]):
        expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        deadline = time.monotonic() + 10
        while len(hashed) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [sha256(path) for path in paths] == expected
    assert sorted(hashed) == paths


def test_recomputed_believes_no_note(tmp_path, settled, cache):
    path, expected = write(tmp_path / "a")
    sha256(path)
    (note,) = cache.iterdir()
    note.write_text("0" * 64)
    assert recomputed(path) == expected


def test_verifying_reads_the_bytes_again(tmp_path, monkeypatch, settled, cache):
    """A memory that is wrong must not vouch for an output."""
    import torch

    from alliage.checkpoints.provenance import verify
    from alliage.merging import plan, run
    from tests.merging.test_odd_inputs import recipe, store

    for number, name in enumerate(("base", "a", "b")):
        store(tmp_path / name, {"layers.0.weight": torch.full((600, 600), float(number))})
    run(plan(recipe(tmp_path)), tmp_path / "out")
    for note in cache.iterdir():
        note.write_text("0" * 64)
    another_process(monkeypatch)
    assert verify(tmp_path / "out")[1] == []
    with (tmp_path / "b" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    (problem,) = verify(tmp_path / "out")[1]
    assert str(tmp_path / "b" / "model.safetensors") in str(problem)
