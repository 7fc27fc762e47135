"""Checkpoints on URLs, against a server that speaks S3, web servers, and fsspec's memory."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.config import conf, set_conf_env
from safetensors.torch import save_file

import alliage
from alliage.checkpoints import provenance, remote
from alliage.checkpoints.digests import sha256
from alliage.checkpoints.remote import RemotePath
from alliage.errors import AlliageError, UsageError
from tests.checkpoints.servers import Proxy, web_server
from tests.conftest import bert_config


@pytest.fixture
def proxy(s3, s3_server, monkeypatch):
    """A proxy before the S3 server, through which s3:// goes."""
    proxy = Proxy(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    type(s3).clear_instance_cache()
    yield proxy
    proxy.close()


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def put(fs, folder: Path, where: str) -> str:
    """Copy a folder's files to a file system; its URL."""
    for file in folder.rglob("*"):
        if file.is_file():
            fs.pipe_file(f"{where}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return f"{fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]}://{where}"


def assert_same_tensors(one, other):
    assert {n: (s.shape, s.dtype) for n, s in one.specs().items()} == {
        n: (s.shape, s.dtype) for n, s in other.specs().items()
    }
    for name in other.specs():
        assert torch.equal(one.read(name), other.read(name)), name


def test_a_model_on_s3_is_the_model_on_the_disk(s3, family):
    url = put(s3, family / "sentiment", "bucket/models/sentiment")
    with alliage.open(url) as there, alliage.open(family / "sentiment") as here:
        assert_same_tensors(there, here)
        assert there.config == here.config
        assert there.name == "sentiment"
        assert there.location == url
        name = max(here.specs(), key=lambda name: here.specs()[name].numel)
        assert torch.equal(there.read(name, 5, 11), here.read(name).reshape(-1)[5:11])
        assert [file.name for file in there.companions] == [file.name for file in here.companions]
        for mine, theirs in zip(there.companions, here.companions, strict=True):
            assert mine.read_bytes() == theirs.read_bytes()
        with alliage.open(f"{url}/model.safetensors") as file:
            assert file.name == "model"
            assert_same_tensors(file, here)


def test_a_sharded_model_by_its_folder_and_by_its_index(s3, tmp_path):
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    BertForMaskedLM(bert_config()).save_pretrained(tmp_path, max_shard_size="10KB")
    url = put(s3, tmp_path, "bucket/sharded")
    with alliage.open(tmp_path) as here:
        assert len(here.weight_files) > 2
        for ref in (url, f"{url}/model.safetensors.index.json", f"{url}/"):
            with alliage.open(ref) as there:
                assert_same_tensors(there, here)
    s3.rm_file(f"bucket/sharded/{here.weight_files[1].name}")
    with pytest.raises(AlliageError, match=f"names .*{here.weight_files[1].name}.*no file there"):
        alliage.open(url)


def test_an_adapter_whose_base_is_a_url(s3, family, tmp_path):
    base = put(s3, family / "base", "bucket/base")
    (tmp_path / "lora").mkdir()
    for file in (family / "sentiment-lora").iterdir():
        (tmp_path / "lora" / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = base
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    url = put(s3, tmp_path / "lora", "bucket/lora")
    with alliage.open(url) as there, alliage.open(family / "sentiment-lora") as here:
        assert_same_tensors(there, here)
        assert there.adapter_modules.keys() == here.adapter_modules.keys()
        copy = there.folder / "adapter_model.safetensors"  # PEFT reads it
        assert copy.read_bytes() == here.weight_files[0].read_bytes()
        assert there.base.path == RemotePath(base)
        assert_same_tensors(there.base, here.base)


def test_heads_beside_a_model_come_with_it(memory, family, tmp_path):
    url = put(memory, family / "base", "/models/base")
    memory.pipe_file("/models/base/heads/topics/head.json", b"{}")
    memory.pipe_file("/models/base/heads/topics/unasked/for.bin", b"")
    with alliage.open(url.replace("memory:///", "memory://")) as checkpoint:
        found = sorted(file.name for file in checkpoint.folder.rglob("*") if file.is_file())
    assert found == ["config.json", "head.json", "tokenizer.json", "tokenizer_config.json"]


def test_the_copies_of_small_files_go_with_the_checkpoint(memory, family):
    put(memory, family / "base", "/base")
    checkpoint = alliage.open("memory://base")
    copy = checkpoint.folder
    assert copy.is_dir()
    del checkpoint
    assert not copy.exists()


def test_opening_and_slicing_read_what_is_asked_for_and_no_more(s3, proxy, tmp_path):
    tensor = torch.arange(2_000_000, dtype=torch.float32)
    save_file({"t": tensor}, tmp_path / "model.safetensors")
    url = put(s3, tmp_path, "bucket/large")
    proxy.sent = 0
    with alliage.open(url) as checkpoint:
        assert torch.equal(checkpoint.read("t", 1_500_000, 1_500_100), tensor[1_500_000:1_500_100])
        assert 0 < proxy.sent < 50_000
        assert torch.equal(checkpoint.read("t"), tensor)
    assert proxy.sent > 8_000_000


def test_large_tensors_come_in_pieces(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_PIECE", 1000)
    tensor = torch.arange(10_007, dtype=torch.int16)
    save_file({"t": tensor}, tmp_path / "model.safetensors")
    put(memory, tmp_path, "/m")
    with alliage.open("memory://m") as checkpoint:
        assert torch.equal(checkpoint.read("t"), tensor)
        assert torch.equal(checkpoint.read("t", 3, 9_000), tensor[3:9_000])
        digests = {
            file["file"]: file for file in provenance.describe_input("x", checkpoint)["files"]
        }
    local = sha256(tmp_path / "model.safetensors")
    assert digests["model.safetensors"]["sha256"] == local


def test_many_threads_may_read(s3, family):
    url = put(s3, family / "base", "bucket/base")
    with alliage.open(url) as there, alliage.open(family / "base") as here:
        names = list(here.specs()) * 3
        with ThreadPoolExecutor(8) as pool:
            for name, tensor in zip(names, pool.map(there.read, names), strict=True):
                assert torch.equal(tensor, here.read(name))


def test_what_was_just_written_is_found(s3, family):
    put(s3, family / "topics", "bucket/topics")
    with pytest.raises(UsageError, match="does not exist"):
        alliage.open("s3://bucket/base")
    put(s3, family / "base", "bucket/base")
    with alliage.open("s3://bucket/base") as checkpoint:
        assert "embeddings.word_embeddings.weight" in checkpoint.specs()


def test_a_file_url_is_a_path(family, tmp_path):
    with alliage.open(f"file://{family}/base") as checkpoint:
        assert checkpoint.path == family / "base"
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with alliage.open(f"file://{tmp_path}") as checkpoint:
        assert torch.equal(checkpoint.read("a"), torch.ones(2))
    with pytest.raises(UsageError, match="does not exist"):
        alliage.open(f"file://{tmp_path}/nothing")


def test_a_web_server_that_lists_nothing(family):
    pytest.importorskip("aiohttp")
    with web_server(family) as url:
        with alliage.open(f"{url}/sentiment") as there, alliage.open(family / "sentiment") as here:
            assert_same_tensors(there, here)
            assert there.config == here.config
            assert [f.name for f in there.companions] == [f.name for f in here.companions]
        with pytest.raises(UsageError, match="does not exist"):
            alliage.open(f"{url}/sentiment/other.safetensors")
        with pytest.raises(AlliageError, match=r"no weights in it: expected model\.safetensors"):
            alliage.open(f"{url}/nowhere")


def test_a_web_server_without_ranges_is_refused(family):
    pytest.importorskip("aiohttp")
    refusal = pytest.raises(AlliageError, match=r"8 bytes asked for, \d+ sent: .* ignores ranges")
    with web_server(family, ranges=False) as url, refusal:
        alliage.open(f"{url}/sentiment/model.safetensors")


def test_a_refusal_is_told_from_a_missing_file(tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "private.safetensors").mkdir()  # the server does not show what is in a folder
    with web_server(tmp_path) as url, pytest.raises(AlliageError, match="access refused: 403"):
        alliage.open(f"{url}/private.safetensors")


def test_pickles_are_not_read_from_urls(memory, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    put(memory, tmp_path, "/pickled")
    with pytest.raises(AlliageError, match=r"pytorch_model\.bin: is a pickle on a URL.*Fetch it"):
        alliage.open("memory://pickled")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/bas", "does not exist. Did you mean 'base'?"),
        ("s3://bucket/base/mdel.safetensors", "does not exist. Did you mean 'model.safetensors'?"),
        ("s3://bukcet/base", "There is no such bucket. Did you mean 'bucket'?"),
        ("s3://bukcet", "There is no such bucket. Did you mean 'bucket'?"),
        ("s3://", "names no bucket or host"),
        ("simplecache::s3://bucket/base", "chained URLs are not supported"),
        ("s4://bucket/base", "unknown protocol 's4'. Did you mean 's3'"),
    ],
)
def test_wrong_urls(s3, family, url, message):
    put(s3, family / "base", "bucket/base")
    with pytest.raises(UsageError) as caught:
        alliage.open(url)
    assert message in str(caught.value)
    assert str(caught.value).startswith(url)


@pytest.mark.parametrize(
    "url",
    ["s3://key:hidden@bucket/m", "https://me:hidden@host/m", "https://host/m.safetensors?s=hidden"],
)
def test_secrets_in_urls_are_refused_and_not_repeated(url):
    with pytest.raises(UsageError, match="provenance") as caught:
        alliage.open(url)
    assert "hidden" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match="pip install gcsfs"):
        alliage.open("gs://bucket/model")


def test_no_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    type(s3).clear_instance_cache()
    with pytest.raises(AlliageError, match=r"no credentials: .*AWS_PROFILE are not set"):
        alliage.open("s3://bucket/base")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    type(s3).clear_instance_cache()
    with pytest.raises(AlliageError, match=r"no credentials: .*nobody.* come from AWS_PROFILE"):
        alliage.open("s3://bucket/base")


def test_a_public_bucket_without_credentials(s3, family, monkeypatch):
    url = put(s3, family / "base", "bucket/base")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    monkeypatch.setitem(conf, "s3", {})
    set_conf_env(conf)  # as on importing fsspec
    with pytest.raises(AlliageError, match=r"access refused: Forbidden\. AWS_ACCESS_KEY_ID and"):
        alliage.open(url)
    for file in s3.ls(url):
        s3.chmod(file, acl="public-read")
    with alliage.open(url) as there, alliage.open(family / "base") as here:
        assert_same_tensors(there, here)


def test_nobody_at_home_is_said_at_once(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    type(s3).clear_instance_cache()
    started = time.monotonic()
    with pytest.raises(AlliageError, match=r"cannot be reached .*127\.0\.0\.1:1"):
        alliage.open("s3://bucket/base")
    assert time.monotonic() - started < 10


def test_a_server_that_never_answers(s3, proxy, monkeypatch):
    proxy.silent = True
    monkeypatch.setattr(remote, "_PATIENCE", 1.0)
    started = time.monotonic()
    with pytest.raises(AlliageError, match="no answer within 1 s"):
        alliage.open("s3://bucket/base")
    assert time.monotonic() - started < 10


def test_a_server_that_dies_in_the_middle_of_a_tensor(s3, proxy, tmp_path):
    save_file({"t": torch.zeros(1_000_000)}, tmp_path / "model.safetensors")
    url = put(s3, tmp_path, "bucket/m")
    with alliage.open(url) as checkpoint:
        proxy.limit = proxy.sent + 500_000
        started = time.monotonic()
        with pytest.raises(AlliageError, match=r"s3://bucket/m/model\.safetensors: cannot be re"):
            checkpoint.read("t")
        assert time.monotonic() - started < 20


def test_a_file_that_is_replaced_while_it_is_read(s3, tmp_path, monkeypatch):
    save_file({"t": torch.zeros(1000)}, tmp_path / "model.safetensors")
    url = put(s3, tmp_path, "bucket/m")
    with alliage.open(url) as checkpoint:
        checkpoint.check_unchanged()
        save_file({"t": torch.ones(1000)}, tmp_path / "model.safetensors")  # of the same size
        put(s3, tmp_path, "bucket/m")
        with pytest.raises(AlliageError, match="changed since it was opened"):
            provenance.describe_input("tuned", checkpoint)
        monkeypatch.setattr(remote, "_RECHECK", 0.0)
        with pytest.raises(AlliageError, match="changed since it was opened"):
            checkpoint.read("t")


@pytest.mark.parametrize("loss", ["shorter", "gone"])
def test_a_file_that_shrinks_or_goes_while_it_is_read(s3, tmp_path, loss):
    save_file({"t": torch.zeros(1000)}, tmp_path / "model.safetensors")
    url = put(s3, tmp_path, "bucket/m")
    with alliage.open(url) as checkpoint:
        if loss == "gone":
            s3.rm_file("bucket/m/model.safetensors")
        else:
            s3.pipe_file("bucket/m/model.safetensors", b"short")
        with pytest.raises(AlliageError, match="changed since it was opened"):
            checkpoint.read("t")


def test_a_damaged_file_on_a_url(memory):
    memory.pipe_file("/m/model.safetensors", b"abc")
    with pytest.raises(AlliageError, match=r"memory://m/model\.safetensors: .*truncated one: 3"):
        alliage.open("memory://m")
    memory.pipe_file("/m/model.safetensors", b"")
    with pytest.raises(AlliageError, match="truncated one: 0 bytes"):
        alliage.open("memory://m")
