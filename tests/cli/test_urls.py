"""The command line on URLs, against a server that speaks S3."""

import json

import pytest

from tests.checkpoints.test_remote import put


@pytest.fixture
def on_s3(s3, workspace):
    """The workspace's models on S3 too."""
    for name in ("base", "sentiment", "topics"):
        put(s3, workspace / name, f"bucket/{name}")
    return s3


def test_inspect(alliage, on_s3):
    there, here = (
        json.loads(alliage(f"inspect {ref} --json").stdout)["checkpoints"][0]
        for ref in ("s3://bucket/sentiment", "sentiment")
    )
    assert there.pop("ref") == there.pop("path") == "s3://bucket/sentiment"
    del here["ref"], here["path"]
    assert there == here
    done = alliage("inspect s3://bucket/sentment")
    assert done.returncode == 2
    assert "Did you mean 'sentiment'?" in done.stderr


def test_a_task_is_rebuilt_from_a_merge_on_a_url(alliage, on_s3, workspace):
    done = alliage("merge --method emr --base base sentiment topics -o merged")
    assert done.returncode == 0, done.stderr
    assert alliage("apply merged --task topics -o here").returncode == 0
    put(on_s3, workspace / "merged", "bucket/merged")
    done = alliage("apply s3://bucket/merged --task topics -o there")
    assert done.returncode == 0, done.stderr
    here, there = (
        {file.name: file.read_bytes() for file in (workspace / out).rglob("*.safetensors")}
        for out in ("here", "there")
    )
    assert len(here) == 2
    assert here == there
    assert (workspace / "there" / "tokenizer.json").is_file()
    assert alliage("verify there").returncode == 0


def test_a_merge_from_urls_is_the_merge_from_the_disk(alliage, on_s3, workspace):
    line = "merge --method ties --set density=0.2 -q"
    done = alliage(f"{line} --base base sentiment topics -o here")
    assert done.returncode == 0, done.stderr
    urls = "--base s3://bucket/base s3://bucket/sentiment s3://bucket/topics"
    done = alliage(f"{line} {urls} -o there")
    assert done.returncode == 0, done.stderr
    here, there = (
        {
            file.relative_to(workspace / out).as_posix(): file.read_bytes()
            for file in (workspace / out).rglob("*")
            if file.is_file()
        }
        for out in ("here", "there")
    )
    records = [json.loads(files.pop("alliage.json")) for files in (here, there)]
    cards = [files.pop("README.md") for files in (here, there)]
    assert "tokenizer.json" in here
    assert here == there
    assert cards[0] != cards[1]  # it names the inputs
    for one, other in zip(*(record["inputs"] for record in records), strict=True):
        assert other["path"] == f"s3://bucket/{one['ref']}"
        assert other["files"] == one["files"]

    verified = alliage("verify there --json")
    assert verified.returncode == 0, verified.stderr
    on_s3.pipe_file("bucket/topics/config.json", b"{}")
    verified = alliage("verify there")
    assert verified.returncode == 3
    assert "s3://bucket/topics/config.json: input topics changed" in verified.stderr


def test_an_output_on_a_url_can_be_verified(alliage, on_s3, workspace):
    alliage("merge --method average sentiment topics -q -o merged")
    put(on_s3, workspace / "merged", "bucket/merged")
    assert alliage("verify s3://bucket/merged").returncode == 0
    on_s3.pipe_file("bucket/merged/config.json", b"{}")
    verified = alliage("verify s3://bucket/merged")
    assert verified.returncode == 3
    assert "s3://bucket/merged/config.json: the output changed" in verified.stderr
    assert alliage("verify s3://bucket/base").returncode == 2


def test_an_output_to_a_url_is_the_output_on_the_disk(alliage, on_s3, workspace, monkeypatch):
    monkeypatch.setenv("ALLIAGE_CACHE", str(workspace / "cache"))
    line = "merge --method ties --base base sentiment topics -q"
    done = alliage(f"{line} -o merged")
    assert done.returncode == 0, done.stderr
    done = alliage(f"{line} -o s3://bucket/out/merged --json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"]["out"] == "s3://bucket/out/merged"
    here = {
        file.relative_to(workspace / "merged").as_posix(): file.read_bytes()
        for file in (workspace / "merged").rglob("*")
        if file.is_file()
    }
    start = "bucket/out/merged/"
    there = {path.removeprefix(start): on_s3.cat_file(path) for path in on_s3.find(start)}
    assert there == here
    assert list((workspace / "cache" / "outputs").iterdir()) == []
    assert alliage("verify s3://bucket/out/merged").returncode == 0

    done = alliage(f"{line} -o s3://bucket/out/merged")
    assert done.returncode == 2
    assert "exists already" in done.stderr


def test_what_could_not_be_uploaded_is_kept_for_resume(workspace, on_s3, monkeypatch):
    from alliage.checkpoints import upload
    from alliage.errors import AlliageError, UsageError
    from alliage.merging import parse_recipe, plan
    from alliage.merging.engine import run as engine

    monkeypatch.setenv("ALLIAGE_CACHE", str(workspace / "cache"))
    models = [str(workspace / name) for name in ("sentiment", "topics")]
    recipe = parse_recipe({"method": "average", "models": models})
    url = "s3://bucket/later"
    home = upload.local_home(url)
    made = plan(recipe, out=url)
    on_s3.rm("bucket", recursive=True)  # the bucket goes away after planning
    with pytest.raises(AlliageError) as caught:
        engine.run(made, url)
    assert f"{home}: the finished output is kept here. Upload it with --resume" in str(caught.value)
    on_s3.mkdir("bucket")
    with pytest.raises(UsageError, match="--resume"):
        engine.run(plan(recipe, out=url), url)

    other = parse_recipe({"method": "average", "models": models[:1]})
    with pytest.raises(UsageError, match="another recipe or other inputs") as caught:
        engine.run(plan(other, out=url, resume=True), url, resume=True)
    assert str(home) in str(caught.value)
    assert not on_s3.exists(url)

    # As after a kill during the upload.
    on_s3.put_file(str(home / "model.safetensors"), "bucket/later/model.safetensors")
    assert plan(recipe, out=url).problems
    engine.run(plan(recipe, out=url, resume=True), url, resume=True)
    assert on_s3.exists("bucket/later/alliage.json")
    assert not home.exists()
    assert plan(recipe, out=url, resume=True).problems  # nothing here of which that is a part


def test_an_output_to_a_file_url_is_a_local_folder(alliage, workspace):
    line = "merge --method average sentiment topics -q"
    done = alliage(f"{line} -o {(workspace / 'merged').as_uri()}")
    assert done.returncode == 0, done.stderr
    assert (workspace / "merged" / "model.safetensors").is_file()
    done = alliage(f"{line} -o {(workspace / 'merged').as_uri()}")
    assert done.returncode == 2
    assert f"{workspace / 'merged'}: exists already." in done.stderr
    done = alliage(f"extract topics --base base --rank 2 -o {(workspace / 'lora').as_uri()}")
    assert done.returncode == 0, done.stderr
    assert (workspace / "lora" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    "line", ["extract topics --base base --rank 2", "prune topics --strategy first --keep 1"]
)
def test_what_is_made_for_the_disk_only_refuses_a_url(alliage, workspace, line):
    before = {path.name for path in workspace.iterdir()}
    done = alliage(f"{line} -o s3://bucket/there")
    assert done.returncode == 2
    assert "s3://bucket/there: this output cannot go to a URL." in done.stderr
    assert {path.name for path in workspace.iterdir()} == before
