"""Outputs onto URLs: complete or not there."""

import itertools

import pytest
import torch
from safetensors.torch import save_file

import alliage
from alliage.checkpoints import upload as uploading
from alliage.checkpoints.upload import upload
from alliage.errors import AlliageError, UsageError
from tests.checkpoints.servers import Proxy
from tests.checkpoints.test_remote import assert_same_tensors


@pytest.fixture
def output(tmp_path):
    """What a run leaves: shards, index, settings, a head, the card."""
    from transformers import BertForMaskedLM

    from tests.conftest import bert_config, save_tokenizer

    folder = tmp_path / "output"
    BertForMaskedLM(bert_config()).save_pretrained(folder, max_shard_size="20KB")
    save_tokenizer(folder)
    (folder / "heads" / "topics").mkdir(parents=True)
    (folder / "heads" / "topics" / "head.json").write_text("{}")
    for name in ("README.md", "alliage.json"):
        (folder / name).write_text("{}")
    return folder


def names(fs, folder):
    return sorted(path.removeprefix(f"{folder}/") for path in fs.find(folder))


def local_names(folder):
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def test_an_uploaded_output_opens_again(s3, output):
    upload(output, "s3://bucket/deep/in/out")
    assert names(s3, "bucket/deep/in/out") == local_names(output)
    with alliage.open("s3://bucket/deep/in/out") as there, alliage.open(output) as here:
        assert_same_tensors(there, here)
        assert (there.folder / "heads" / "topics" / "head.json").read_text() == "{}"


def after_each(monkeypatch, act):
    """Call act(number, path) after each file that is put, from 1 on."""
    real, count = uploading._put, itertools.count(1)

    def put_and_act(file, target):
        real(file, target)
        act(next(count), target)

    monkeypatch.setattr(uploading, "_put", put_and_act)


def test_what_makes_it_loadable_comes_last(s3, output, monkeypatch):
    order = []
    after_each(monkeypatch, lambda _, path: order.append(path.name))
    upload(output, "s3://bucket/out")
    assert order[-3:] == ["model.safetensors.index.json", "config.json", "alliage.json"]
    shards = [name for name in order if name.endswith(".safetensors")]
    assert order[: len(shards)] == shards


def test_an_existing_output_is_refused(s3, output, tmp_path):
    upload(output, "s3://bucket/out")
    before = names(s3, "bucket")
    for url in ("s3://bucket/out", "s3://bucket/out/", "s3://bucket/out/config.json"):
        with pytest.raises(UsageError, match="exists already"):
            upload(output, url)
    assert names(s3, "bucket") == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://nobody/out", "s3://nobody does not exist. Make the bucket first"),
        ("s3://bucket", "is a whole bucket"),
        ("https://host/out", "expected one that can be written to"),
    ],
)
def test_places_that_cannot_hold_an_output(s3, output, url, message):
    with pytest.raises(UsageError) as caught:
        upload(output, url)
    assert message in str(caught.value)


def test_a_file_that_appears_meanwhile_is_neither_replaced_nor_removed(s3, output, monkeypatch):
    def disturb(number, _):
        if number == 1:
            s3.pipe_file("bucket/out/config.json", b"somebody else's")

    after_each(monkeypatch, disturb)
    with pytest.raises(AlliageError, match="appeared while"):
        upload(output, "s3://bucket/out")
    assert names(s3, "bucket/out") == ["config.json"]
    assert s3.cat_file("bucket/out/config.json") == b"somebody else's"


def test_nothing_is_left_of_an_upload_that_was_given_up(s3, output, monkeypatch):
    seen = []

    def interrupt(number, _):
        seen.append(names(s3, "bucket/out"))
        if number == 2:
            raise KeyboardInterrupt

    after_each(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        upload(output, "s3://bucket/out")
    assert [len(found) for found in seen] == [1, 2]
    assert names(s3, "bucket/out") == []


def test_a_server_that_dies_during_the_upload(s3, s3_server, tmp_path, monkeypatch):
    save_file({"t": torch.zeros(100_000)}, tmp_path / "model.safetensors")
    proxy = Proxy(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    type(s3).clear_instance_cache()
    (tmp_path / "config.json").write_text("{}")
    after_each(monkeypatch, lambda *_: setattr(proxy, "limit", 0))
    with pytest.raises(AlliageError, match="cannot be reached") as caught:
        upload(tmp_path, "s3://bucket/out")
    proxy.close()
    assert "2 files of an unfinished output could not be removed" in str(caught.value)


def test_an_upload_that_was_killed_is_completed_by_resume(s3, output, monkeypatch):
    shards = sorted(output.glob("*.safetensors"))
    for file in (shards[0], output / "heads" / "topics" / "head.json"):
        s3.put_file(str(file), f"bucket/out/{file.relative_to(output).as_posix()}")
    with pytest.raises(UsageError, match="exists already"):
        upload(output, "s3://bucket/out")
    put = []
    after_each(monkeypatch, lambda _, path: put.append(path.url))
    upload(output, "s3://bucket/out", resume=True)
    assert names(s3, "bucket/out") == local_names(output)
    assert len(put) == len(local_names(output)) - 2
    with alliage.open("s3://bucket/out") as there, alliage.open(output) as here:
        assert_same_tensors(there, here)


@pytest.mark.parametrize(
    ("name", "content"),
    [("alliage.json", b"[]"), ("alliage.json", b"{} "), ("notes.txt", b"")],
    ids=["other bytes", "another size", "another name"],
)
def test_resume_takes_nothing_of_somebody_else_for_its_own(s3, output, name, content):
    s3.put_file(str(output / "config.json"), "bucket/out/config.json")
    s3.pipe_file(f"bucket/out/{name}", content)
    with pytest.raises(UsageError, match="exists already, with") as caught:
        upload(output, "s3://bucket/out", resume=True)
    assert name in str(caught.value)
    assert "config.json" not in str(caught.value)
    assert names(s3, "bucket/out") == sorted(["config.json", name])
    assert s3.cat_file(f"bucket/out/{name}") == content


def test_it_works_on_any_file_system(output):
    import fsspec

    upload(output, "memory://some/out")
    fs = fsspec.filesystem("memory")
    try:
        with alliage.open("memory://some/out") as there, alliage.open(output) as here:
            assert_same_tensors(there, here)
        with pytest.raises(UsageError, match="exists already"):
            upload(output, "memory://some/out")
    finally:
        fs.store.clear()
