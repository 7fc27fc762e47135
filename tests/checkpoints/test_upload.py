"""Outputs onto URLs: complete or not there."""

import pytest
import torch
from safetensors.torch import save_file

import alliage
from alliage.checkpoints.upload import Uploader, upload
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


def test_what_makes_it_loadable_comes_last(s3, output, monkeypatch):
    order = []
    real = Uploader.put

    def put_and_note(self, file, name=None):
        real(self, file, name)
        order.append(name)

    monkeypatch.setattr(Uploader, "put", put_and_note)
    upload(output, "s3://bucket/out")
    assert order[-3:] == ["model.safetensors.index.json", "config.json", "alliage.json"]
    shards = [name for name in order if name.endswith(".safetensors")]
    assert order[: len(shards)] == shards


def test_shards_may_be_handed_over_one_by_one(s3, output):
    expected = local_names(output)
    with Uploader("s3://bucket/out") as uploader:
        for shard in sorted(output.glob("*.safetensors")):
            uploader.put(shard)
            shard.unlink()
        uploader.finish(output)
    assert names(s3, "bucket/out") == expected


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


def test_a_file_that_appears_meanwhile_is_neither_replaced_nor_removed(s3, output):
    def together():
        with Uploader("s3://bucket/out") as uploader:
            s3.pipe_file("bucket/out/config.json", b"somebody else's")
            uploader.finish(output)

    with pytest.raises(AlliageError, match="appeared while"):
        together()
    assert names(s3, "bucket/out") == ["config.json"]
    assert s3.cat_file("bucket/out/config.json") == b"somebody else's"


def test_nothing_is_left_of_an_upload_that_was_given_up(s3, output):
    def interrupted():
        with Uploader("s3://bucket/out") as uploader:
            uploader.put(next(output.glob("*.safetensors")))
            assert len(names(s3, "bucket/out")) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with Uploader("s3://bucket/out") as uploader:  # left without finish
        uploader.put(next(output.glob("*.safetensors")))
    assert names(s3, "bucket/out") == []


def test_a_server_that_dies_during_the_upload(s3, s3_server, tmp_path, monkeypatch):
    save_file({"t": torch.zeros(100_000)}, tmp_path / "model.safetensors")
    proxy = Proxy(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    type(s3).clear_instance_cache()
    (tmp_path / "config.json").write_text("{}")

    def cut_off():
        with Uploader("s3://bucket/out") as uploader:
            uploader.put(tmp_path / "model.safetensors")
            proxy.limit = 0
            uploader.finish(tmp_path)

    with pytest.raises(AlliageError, match="cannot be reached") as caught:
        cut_off()
    proxy.close()
    assert "2 files of an unfinished output could not be removed" in str(caught.value)


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
