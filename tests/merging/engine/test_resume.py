"""Merges in processes of their own that are killed, stopped, starved of disk, and gone on with."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alliage.checkpoints import remote
from alliage.errors import TransientError, UsageError
from alliage.merging import parse_recipe, plan, run
from tests.checkpoints.servers import Proxy, web_server

ALLIAGE = Path(sys.executable).with_name("alliage")
PARTS = 12  # of the output, 4 MiB each
_TOKENIZER_BYTES = 8 * 2**20

# Kills itself when half of a stage's blocks, or all, are through and some parts written down.
_KILLED = """
import os, signal, sys, time
from pathlib import Path
from alliage.merging import load_recipe, plan, run
recipe, out, stage, share, parts = sys.argv[1:]
journal = Path(out).parent / f".{Path(out).name}.partial" / "journal"
def on_event(at, done, total):
    if at == stage and done >= float(share) * total:
        while journal.read_bytes().count(b'"part"') < int(parts):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
run(plan(load_recipe(Path(recipe)), threads=2), out, on_event=on_event, resume=True)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """base, a, b and ties.yml. Where a is 2 and b is -2 TIES asks for the sign of all votes, which
    is negative; it begins by guessing that it is positive.
    """
    home = tmp_path_factory.mktemp("inputs")
    generator, values = torch.Generator().manual_seed(0), torch.tensor([-2.0, -2, -1, 0, 1, 2])
    for name in ("base", "a", "b"):
        (home / name).mkdir()
        tensors = {}
        for layer in range(PARTS):
            drawn = values[torch.randint(6, (1024, 1024), generator=generator)]
            tensors[f"layers.{layer}.weight"] = drawn * (name != "base")
        save_file(tensors, home / name / "model.safetensors")
    (home / "base" / "config.json").write_text("{}")
    (home / "base" / "tokenizer.json").write_bytes(b" " * _TOKENIZER_BYTES)
    models = [str(home / name) for name in "ab"]
    recipe = {"method": "ties", "base": str(home / "base"), "models": models}
    (home / "ties.yml").write_text(json.dumps(recipe))
    return home


@pytest.fixture(scope="module")
def whole(inputs):
    """What a merge that nothing disturbs writes: file -> bytes."""
    assert merge(inputs, inputs / "whole" / "out").returncode == 0
    return content(inputs / "whole" / "out")


def content(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def command(inputs, out, *options):
    words = [ALLIAGE, "merge", inputs / "ties.yml", "-o", out, "--threads", "1", *options]
    return list(map(str, words))


def merge(inputs, out, *options):
    words = command(inputs, out, *options)
    return subprocess.run(words, capture_output=True, text=True, check=False)


def killed(inputs, out, stage="merging", share=0.5, parts=1):
    words = [_KILLED, inputs / "ties.yml", out, stage, share, parts]
    done = subprocess.run([sys.executable, "-c", *map(str, words)], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture(autouse=True)
def _heeds_interrupts():
    """What a shell starts in the background ignores SIGINT, and so would all that tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def begun(inputs, out, *options):
    """A running merge to `out` with some parts done, and more to do."""
    journal = out.parent / f".{out.name}.partial" / "journal"
    for _ in range(20):
        process = subprocess.Popen(command(inputs, out, *options), stderr=subprocess.PIPE)
        while process.poll() is None:
            if journal.exists() and journal.read_bytes().count(b'"part"'):
                return process
            time.sleep(0.001)
        process.communicate()
        shutil.rmtree(out)  # this process was not looked at for so long: once more
    raise AssertionError("never seen while it merged")


def goes_on(inputs, out, whole, *options):
    """Go on with what an interrupted run left, to the same bytes; what the command says of it."""
    done = merge(inputs, out, "--resume", "--json", *options)
    assert done.returncode == 0, done.stderr
    assert content(out) == whole
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return json.loads(done.stdout)["run"]


def test_a_killed_merge_goes_on_to_the_same_bytes(inputs, whole, tmp_path):
    out = tmp_path / "out"
    killed(inputs, out)
    assert not out.exists()
    first = merge(inputs, out)
    assert first.returncode == 2
    assert "left its work in" in first.stderr
    assert "Go on with --resume (resume=True), or remove that folder." in first.stderr
    killed(inputs, out, share=0.6, parts=2)
    run = goes_on(inputs, out, whole)
    assert 2 <= run["parts_kept"] < PARTS


def test_more_threads_and_less_memory_change_nothing(inputs, whole, tmp_path):
    out = tmp_path / "out"
    killed(inputs, out)
    run = goes_on(inputs, out, whole, "--threads", "3", "--memory", "30MiB")
    assert run["parts_kept"] > 0


@pytest.mark.parametrize(("stage", "share"), [("merging", 1), ("merging, again", 0.1)])
def test_a_wrong_guess_is_redone_whenever_the_kill_came(inputs, whole, tmp_path, stage, share):
    """Before the blocks that depended on it are merged again, or in the middle of that."""
    out = tmp_path / "out"
    killed(inputs, out, stage, share, PARTS)
    run = goes_on(inputs, out, whole)
    assert run["parts_kept"] == PARTS
    assert run["blocks_redone"] > 0


def test_a_merge_killed_at_its_papers_does_not_vouch_for_its_own_record(inputs, whole, tmp_path):
    """alliage.json and the card of the killed run are not the output's files."""
    out = tmp_path / "out"
    killed(inputs, out, share=1, parts=PARTS)
    for name in ("alliage.json", "README.md"):
        (tmp_path / ".out.partial" / "files" / name).write_text("half of it")
    goes_on(inputs, out, whole)
    assert subprocess.run([ALLIAGE, "verify", out], check=False).returncode == 0


def test_another_recipe_or_changed_inputs_are_refused_by_name(inputs, whole, tmp_path):
    home, out = tmp_path / "inputs", tmp_path / "made" / "out"
    shutil.copytree(inputs, home, ignore=lambda *_: ["whole"])
    recipe = json.loads((home / "ties.yml").read_text())
    recipe |= {"base": str(home / "base"), "models": [str(home / name) for name in "ab"]}
    (home / "ties.yml").write_text(json.dumps(recipe))
    killed(home, out)
    journal = (tmp_path / "made" / ".out.partial" / "journal").read_bytes()
    (home / "ties.yml").write_text(json.dumps(recipe | {"parameters": {"density": 0.5}}))
    other = merge(home, out, "--resume")
    assert other.returncode == 2
    assert "recipe parameters density was None, now 0.5" in other.stderr
    (home / "ties.yml").write_text(json.dumps(recipe))
    model = home / "b" / "model.safetensors"
    os.utime(model, ns=(1, 1))
    changed = merge(home, out, "--resume")
    assert changed.returncode == 2
    assert f"inputs {model}" in changed.stderr
    assert f"inputs {home / 'a'}" not in changed.stderr
    assert (tmp_path / "made" / ".out.partial" / "journal").read_bytes() == journal


def test_a_second_writer_is_refused_while_the_first_runs(inputs, whole, tmp_path):
    out = tmp_path / "out"
    process = begun(inputs, out)
    process.send_signal(signal.SIGSTOP)
    for options in ((), ("--resume",)):
        second = merge(inputs, out, *options)
        assert second.returncode == 2
        assert f"{out}: is being written by another process. Wait for it" in second.stderr
    process.send_signal(signal.SIGCONT)
    process.communicate()
    assert process.returncode == 0
    assert content(out) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    shutil.rmtree(out)
    assert merge(inputs, out).returncode == 0


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_merge_says_that_its_work_is_kept(inputs, whole, tmp_path, kind):
    out = tmp_path / "out"
    process = begun(inputs, out)
    process.send_signal(kind)
    _, said = process.communicate()
    assert process.returncode == 128 + kind
    assert said.decode() == (
        f"alliage: {out}: what is done is kept. Go on with --resume (resume=True).\n"
    )
    assert goes_on(inputs, out, whole)["parts_kept"] > 0


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_merge_stopped_before_anything_was_done_leaves_and_says_nothing(inputs, tmp_path, kind):
    process = subprocess.Popen(command(inputs, tmp_path / "out"), stderr=subprocess.PIPE)
    while not (tmp_path / ".out.partial" / "files" / "model.safetensors").exists():
        time.sleep(0.001)
    process.send_signal(kind)  # the kernels are not even loaded
    _, said = process.communicate()
    assert process.returncode == 128 + kind
    assert said == b""
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_appeared_meanwhile_is_not_touched(inputs, whole, tmp_path):
    out = tmp_path / "out"
    process = begun(inputs, out)
    process.send_signal(signal.SIGSTOP)
    out.mkdir()
    (out / "mine").write_text("precious")
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate()
    assert process.returncode == 2
    assert "exists already" in said.decode()
    assert "Go on with --resume" in said.decode()
    assert content(out) == {"mine": b"precious"}
    shutil.rmtree(out)
    assert goes_on(inputs, out, whole)["parts_kept"] == PARTS


def test_a_network_that_fails_meanwhile_costs_no_finished_part(inputs, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    out, left = tmp_path / "out", tmp_path / ".out.partial" / "journal"

    def arithmetic(home):
        models = [f"{home}/a", str(inputs / "b")]
        chosen = {"method": "task_arithmetic", "base": str(inputs / "base"), "models": models}
        return plan(parse_recipe(chosen), resume=True)

    with web_server(inputs) as url:
        proxy = Proxy(url)

        def fail(stage, done, total):
            if stage == "merging" and 2 * done >= total:
                while not left.read_bytes().count(b'"part"'):
                    time.sleep(0.001)
                proxy.limit = 0
                monkeypatch.setattr(remote, "_PATIENCE", 1.0)

        with pytest.raises(TransientError, match=r"/a/model\.safetensors: cannot be") as caught:
            run(arithmetic(proxy.url), out, on_event=fail)
        assert "Go on with --resume" in caught.value.__notes__[0]
        proxy.limit = None
        monkeypatch.undo()
        assert 0 < run(arithmetic(proxy.url), out, resume=True).parts_kept < PARTS
        proxy.close()
    run(arithmetic(inputs), tmp_path / "whole")
    files = [tmp_path / name / "model.safetensors" for name in ("out", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def in_own_mounts(script, disk, *arguments):
    """Run a shell script with mounts that nobody else sees; it may mount something on `disk`.

    Skips where the system does not allow that.
    """
    disk.mkdir()
    own = ["unshare", "--map-root-user", "--mount"]
    tried = [*own, "mount", "-t", "tmpfs", "tmpfs", str(disk)]
    if not shutil.which("unshare") or subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("needs a mount namespace, which this system does not allow")
    words = [*own, "sh", "-c", script, "sh", *map(str, (disk, *arguments))]
    return subprocess.run(words, capture_output=True, text=True, check=False)


_FULL_DISK = """
disk=$1; small=$2; large=$3; kept=$4; shift 4
mount -t tmpfs -o size=$small tmpfs $disk
"$@"; echo "first: $?" >&2
mount -o remount,size=$large $disk
"$@" --resume --json || exit
ls -A $disk >&2
cp -r $disk/out $kept
"""


def test_a_full_disk_is_named_and_with_more_room_the_merge_goes_on(inputs, whole, tmp_path):
    """There is room for the weights, which the plan asks for, and none for the tokenizer."""
    disk, weights = tmp_path / "disk", len(whole["model.safetensors"])
    sizes = (weights + _TOKENIZER_BYTES // 2, weights + 2 * _TOKENIZER_BYTES)
    merging = command(inputs, disk / "out")
    done = in_own_mounts(_FULL_DISK, disk, *sizes, tmp_path / "kept", *merging)
    first, _, left = done.stderr.partition("first: ")
    assert left.splitlines() == ["1", "out"]
    assert first.splitlines() == [
        f"alliage: {disk / 'out'}: No space left on device. Make room.",
        f"alliage: {disk / 'out'}: what is done is kept. Go on with --resume (resume=True).",
    ]
    assert json.loads(done.stdout)["run"]["parts_kept"] == PARTS
    assert content(tmp_path / "kept") == whole


def test_a_disk_that_is_read_only_is_named(inputs, tmp_path):
    disk = tmp_path / "disk"
    script = 'mount -t tmpfs -o ro tmpfs "$1"; shift; exec "$@"'
    done = in_own_mounts(script, disk, *command(inputs, disk / "out"))
    assert done.returncode == 2
    assert done.stderr == f"alliage: {disk / 'out'}: {disk} cannot be written to.\n"


def test_what_the_journal_calls_done_is_on_the_disk_before(inputs, tmp_path):
    """So a crash of the whole machine loses work, and never makes a wrong output."""
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-s", "16", "-o", str(trace), "-e",
              "trace=pwrite64,write,fdatasync,fsync,rename"]  # fmt: skip
    if not shutil.which("strace") or subprocess.run([*strace, "true"]).returncode:
        pytest.skip("needs strace")
    subprocess.run([*strace, *command(inputs, tmp_path / "out")], check=True)
    pattern = re.compile(r"^\d+ +(\w+)\((?:\"|\d+<)([^>\"]*)[>\"](.*)$", re.MULTILINE)
    lines = re.sub(r"^\d+ +<\.\.\. .*$", "", trace.read_text(), flags=re.MULTILINE)
    calls = pattern.findall(lines)
    partial = tmp_path / ".out.partial"
    weights, journal = str(partial / "files" / "model.safetensors"), str(partial / "journal")
    seen = [(call, path, rest) for call, path, rest in calls if str(tmp_path) in path]
    parts = [n for n, (call, path, rest) in enumerate(seen)
             if (call, path) == ("write", journal) and '{\\"part\\"' in rest]  # fmt: skip
    assert len(parts) == PARTS
    synced = [n for n, (call, path, _) in enumerate(seen) if (call, path) == ("fdatasync", weights)]
    for place in parts:  # workers may write blocks meanwhile
        following = next(call for call, path, _ in seen[place + 1 :] if path == journal)
        assert following == "fdatasync"
    # The bytes of part k were written, then synced, then written down.
    starts = [n for n, (call, path, _) in enumerate(seen) if (call, path) == ("pwrite64", weights)]
    blocks = starts[1:]  # the first one is the header
    each = len(blocks) // PARTS
    for number, place in enumerate(parts):
        last = blocks[min((number + 1) * each, len(blocks)) - 1]
        assert any(last < sync < place for sync in synced)
    assert ("fsync", str(partial / "files")) in [each[:2] for each in seen[: parts[0]]]
    # Nothing is renamed before everything is on the disk.
    renamed = next(n for n, (call, _, _) in enumerate(seen) if call == "rename")
    files = {str(partial / "files" / name) for name in content(tmp_path / "out")}
    assert files <= {path for call, path, _ in seen[:renamed] if call == "fsync"}
    assert seen[renamed + 1][:2] == ("fsync", str(tmp_path))


def test_resume_of_what_is_complete_is_done_at_once(family, tmp_path):
    models = [str(family / name) for name in ("sentiment", "topics")]
    recipe = parse_recipe({"method": "ties", "base": str(family / "base"), "models": models})
    out = tmp_path / "out"
    run(plan(recipe, out=out, resume=True), out, resume=True)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    # as a run leaves it that is killed between the rename and its last step
    home = tmp_path / ".out.partial"
    home.mkdir()
    (home / "journal").write_text("{}\n")
    record = run(plan(recipe, out=out, resume=True), out, resume=True)
    assert record.passes == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert not home.exists()
    other = recipe.model_copy(update={"parameters": {"density": 0.5}})
    with pytest.raises(UsageError, match="exists already"):
        run(plan(other, out=out, resume=True), out, resume=True)
