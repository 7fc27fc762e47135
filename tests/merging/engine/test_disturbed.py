"""Merges whose inputs or whose own files are changed while they run or wait to go on."""

import os
import re
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file

from alliage.errors import AlliageError, TransientError, UsageError
from alliage.merging import plan, run
from tests.merging.test_odd_inputs import recipe, store, three


@pytest.fixture
def home(tmp_path):
    """base, a and b, and nothing else."""
    for name, tensor in zip(("base", "a", "b"), three((1000, 1000)), strict=True):
        store(tmp_path / name, {f"layers.{k}.weight": tensor + k for k in range(3)})
    return tmp_path


def large(home):
    """A plan of hundreds of blocks."""
    chosen = recipe(home, "ties")
    return plan(chosen, memory=plan(chosen).least_memory)


def at_the_first_event(action):
    done = []

    def on_event(*_):
        if not done:
            done.append(True)
            action()

    return on_event


def test_an_input_shortened_while_the_merge_runs_is_named_and_leaves_nothing(home):
    made, victim = large(home), home / "b" / "model.safetensors"
    with pytest.raises(AlliageError, match="became shorter") as caught:
        run(made, home / "out", on_event=at_the_first_event(lambda: os.truncate(victim, 5000)))
    assert str(victim) in str(caught.value)
    assert sorted(path.name for path in home.iterdir()) == ["a", "b", "base"]


def test_a_pickled_input_shortened_while_the_merge_runs_is_named_too(home):
    """It is mapped into memory, where reading past its end would kill the process."""
    shutil.rmtree(home / "b")
    (home / "b").mkdir()
    victim = home / "b" / "pytorch_model.bin"
    torch.save({f"layers.{k}.weight": torch.ones(1000, 1000) for k in range(3)}, victim)
    with pytest.raises(AlliageError, match="became shorter"):
        run(
            large(home),
            home / "out",
            on_event=at_the_first_event(lambda: os.truncate(victim, 5000)),
        )
    assert sorted(path.name for path in home.iterdir()) == ["a", "b", "base"]


def test_an_input_deleted_while_the_merge_runs_is_named_and_leaves_nothing(home):
    """Its bytes can still be read; its digest for the provenance cannot."""
    made, victim = large(home), home / "b" / "model.safetensors"
    with pytest.raises(AlliageError, match=r"model\.safetensors"):
        run(made, home / "out", on_event=at_the_first_event(victim.unlink))
    assert sorted(path.name for path in home.iterdir()) == ["a", "b", "base"]


def interrupted(home, monkeypatch):
    """A run that was stopped in the middle, with some parts done; and its plan."""
    monkeypatch.setattr("alliage.merging.engine.blocks._PART_BYTES", 200_000)
    made, events = large(home), []

    def on_event(stage, *_):
        events.append(stage)
        if events.count("merging") == 400:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, home / "out", on_event=on_event)
    return made, home / ".out.partial"


def replaced(file):
    """Other bytes under the same name, of the same size and time of modification."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    other = file.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def rewritten(file):
    """The same in place."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    with file.open("r+b") as target:
        target.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced, rewritten])
@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_another_input_of_the_same_size_and_time_is_noticed(home, monkeypatch, change, kind):
    victim = home / "b" / "model.safetensors"
    if kind == "pickle":
        tensors = load_file(victim)
        victim.unlink()
        victim = home / "b" / "pytorch_model.bin"
        torch.save(tensors, victim)
    interrupted(home, monkeypatch)
    change(victim)
    with pytest.raises(UsageError, match=re.escape(f"inputs {victim}")):
        run(large(home), home / "out", resume=True)
    made = large(home)  # and while a merge runs
    with pytest.raises(AlliageError, match="changed while it was read"):
        run(made, home / "again", on_event=at_the_first_event(lambda: change(victim)))
    assert not (home / "again").exists()


def test_blocks_begun_with_more_memory_go_on_with_fewer_workers(home, monkeypatch):
    monkeypatch.setattr("alliage.merging.engine.blocks._PART_BYTES", 200_000)
    chosen, seen = recipe(home, "task_arithmetic"), []
    made = plan(chosen)

    def stop(*_):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, home / "out", on_event=stop)
    least = made.memory_for(1, made.block)
    short = plan(chosen, threads=4, memory=least - 1)
    assert short.block < made.block
    with pytest.raises(TransientError, match=f"Give at least {least / 2**20:.1f} MiB"):
        run(short, home / "out", resume=True)
    workers = set()
    enough = plan(chosen, threads=4, memory=least)
    record = run(
        enough,
        home / "out",
        resume=True,
        on_event=lambda stage, *_: (
            stage == "merging" and workers.add(threading.current_thread().name)
        ),
    )
    assert record.parts_kept > 0
    assert workers == {"alliage_0"}
    run(made, home / "whole")
    files = [(home / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert files[0] == files[1]


@pytest.mark.parametrize("tail", [b"\0" * 100 + b"\n", b"[1]\n", b"\xff\n{}\n", b'{"part":'])
def test_a_journal_with_a_damaged_end_is_gone_on_with_from_there(home, monkeypatch, tail):
    made, left = interrupted(home, monkeypatch)
    with (left / "journal").open("ab") as journal:
        journal.write(tail)
    assert run(made, home / "out", resume=True).parts_kept > 10
    run(large(home), home / "whole")
    files = [(home / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert files[0] == files[1]


@pytest.mark.parametrize("loss", [lambda file: file.unlink(), lambda file: os.truncate(file, 999)])
def test_a_run_whose_files_were_lost_is_not_gone_on_with(home, monkeypatch, loss):
    """The journal says that parts are done; in new files they would be zeros."""
    made, left = interrupted(home, monkeypatch)
    loss(left / "files" / "model.safetensors")
    with pytest.raises(UsageError, match="gone or cut off"):
        run(made, home / "out", resume=True)
    assert not (home / "out").exists()
    assert run(made, home / "out").parts_kept == 0


def test_what_stands_in_the_way_of_a_journal_is_left_alone(home):
    (home / "mine").mkdir()
    partial = home / ".out.partial"
    for kind in ("link", "file", "damaged", "journal is a folder", "fifo"):
        if kind == "link":
            partial.symlink_to("mine")
        elif kind == "file":
            partial.write_text("mine")
        else:
            partial.mkdir()
            if kind == "fifo":
                os.mkfifo(partial / "journal")
            elif kind == "damaged":
                (partial / "journal").write_text("mine\n")
            else:
                (partial / "journal").mkdir()
        before = sorted(home.rglob("*"))
        with pytest.raises(UsageError, match="expected an interrupted run's"):
            run(plan(recipe(home)), home / "out", resume=True)
        assert sorted(home.rglob("*")) == before
        shutil.rmtree(
            partial
        ) if not partial.is_symlink() and partial.is_dir() else partial.unlink()
