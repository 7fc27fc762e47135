"""One merge over a cluster of two nodes on this machine, against the same merge by threads."""

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch

import alliage
from alliage.checkpoints.writer import plan_layout
from alliage.errors import AlliageError, TransientError, UsageError
from alliage.merging import parse_recipe, plan, run
from alliage.merging.engine import tasks
from alliage.merging.engine.distributed import await_tasks
from alliage.merging.engine.progress import software, subject
from alliage.merging.thresholds import TrimThresholds
from tests.merging.test_odd_inputs import command, recipe, store


@pytest.fixture(scope="module")
def cluster():
    """The address of two nodes with a core each."""
    pytest.importorskip("ray", reason="pip install 'alliage[ray]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        nodes.add_node(**node)
        yield nodes.address
    finally:
        nodes.shutdown()


@pytest.fixture
def connected(cluster):
    """A connection of the user's own, that merges use and leave open."""
    import ray

    ray.init(cluster, log_to_driver=False, logging_level="ERROR")
    yield ray
    assert ray.is_initialized()
    ray.shutdown()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """base, a and b: coarse, so that magnitudes are equal and votes cancel; 3 million elements."""
    home = tmp_path_factory.mktemp("models")
    generator = torch.Generator().manual_seed(4)  # most signs are negative
    for name in ("base", "a", "b"):
        tensors = {
            f"layers.{k}.weight": (torch.randn(500, 1000, generator=generator) * 64).round() / 64
            for k in range(6)
        }
        store(home / name, tensors | {"norm.weight": torch.randn(10, generator=generator)})
    return home


def files(folder):
    """What was written, but for the record and its card: they tell the time."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("alliage.json", "README.md")
    }


def small_blocks(chosen, **more):
    """A plan of hundreds of blocks."""
    return plan(chosen, memory=plan(chosen, **more).least_memory, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("ties", {}),
        ("ties", {"kept": "count"}),
        ("ties", {"trim": "tensor", "kept": "count", "density": [0.1, 0.5]}),
        ("slerp", {"t": 0.3}),
        ("dare_linear", {"rescale": "l1", "density": 0.5}),
        ("emr", {}),  # with the masks beside it
    ],
)
def test_a_cluster_writes_the_bytes_of_one_machine(connected, models, tmp_path, method, parameters):
    chosen = recipe(models, method, parameters=parameters, dtype="bfloat16")
    made = small_blocks(chosen, shard_bytes=5_000_000)
    records = [run(made, tmp_path / executor, executor=executor) for executor in ("local", "ray")]
    here, there = files(tmp_path / "local"), files(tmp_path / "ray")
    assert here == there
    assert len([name for name in here if name.startswith("model-")]) == 2
    assert records[0].passes == records[1].passes


@pytest.mark.slow
def test_adapters_under_relative_paths_merge_on_a_cluster_as_here(
    cluster, family, tmp_path, monkeypatch
):
    """The workers start in another folder. Factors go through torch, not through the kernel."""
    monkeypatch.chdir(family)
    chosen = parse_recipe(
        {
            "method": "task_arithmetic",
            "base": "base",
            "models": ["sentiment-lora", "topics-lora", "topics"],
            "parameters": {"scale": 0.3},
        }
    )
    made = small_blocks(chosen)
    run(made, tmp_path / "here")
    run(made, os.path.relpath(tmp_path / "there"), executor="ray", ray_address=cluster)
    assert files(tmp_path / "there") == files(tmp_path / "here")


@pytest.mark.slow
def test_given_signs_reach_a_cluster(cluster, models, tmp_path):
    signs = tmp_path / "signs.safetensors"
    alliage.signs(models / "b", base=models / "base", out=signs)
    made = small_blocks(recipe(models, "ties", signs=str(signs)))
    run(made, tmp_path / "here")
    run(made, tmp_path / "there", executor="ray", ray_address=cluster)
    assert files(tmp_path / "there") == files(tmp_path / "here")


@pytest.mark.slow
def test_the_command_merges_on_a_cluster(cluster, models, tmp_path, monkeypatch, capfd):
    words = ["merge", "-q", "--method", "average", models / "a", models / "b", "-o"]
    code, said = command(
        monkeypatch, capfd, *words, tmp_path / "there", "--on", "ray", "--ray-address", cluster
    )
    assert (code, said) == (0, "")
    assert command(monkeypatch, capfd, *words, tmp_path / "here")[0] == 0
    assert files(tmp_path / "there") == files(tmp_path / "here")


def busy_workers():
    """Processes on this machine that are at a task of a cluster which this process has begun."""
    parents, busy = {}, []
    for home in Path("/proc").glob("[0-9]*"):
        try:
            pid, title = int(home.name), (home / "cmdline").read_bytes()
            parents[pid] = int((home / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith(b"ray::work"):
            busy.append(pid)

    def is_ours(pid):
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    return [pid for pid in busy if is_ours(pid)]


@pytest.mark.slow
def test_killed_workers_change_no_byte_and_neither_do_wrong_guesses(connected, models, tmp_path):
    made = small_blocks(recipe(models, "ties"))
    run(made, tmp_path / "here")
    killed, killers = [], []

    def kill_one():
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for pid in busy_workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return

    def on_event(stage, done, total):
        if stage in ("sampling", "first pass") and (stage == "first pass" or done < 1000):
            killers.append(threading.Thread(target=kill_one))  # whoever is at what comes next
            killers[-1].start()

    record = run(made, tmp_path / "there", executor="ray", on_event=on_event)
    for killer in killers:
        killer.join()
    assert len(killed) == 2
    assert record.blocks_redone > 0
    assert files(tmp_path / "there") == files(tmp_path / "here")


def killed_driver(models, out, executor, address):
    """A process that kills itself in the middle, when the journal knows some parts to be done."""
    journal = out.parent / f".{out.name}.partial" / "journal"
    script = f"""
        import os, signal, time
        from alliage.merging import run
        from tests.merging.engine.test_distributed import recipe, small_blocks
        from pathlib import Path

        def on_event(stage, done, total):
            if stage == "merging" and done > total / 2:  # of three parts
                while b'"part"' not in Path({str(journal)!r}).read_bytes():
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)

        run(
            small_blocks(recipe(Path({str(models)!r}), "ties")), {str(out)!r},
            executor={executor!r}, ray_address={address!r}, on_event=on_event,
        )
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("ray", "local"), ("local", "ray"), ("ray", "ray")])
def test_a_killed_driver_is_gone_on_with_by_either_executor(cluster, models, tmp_path, first, then):
    made = small_blocks(recipe(models, "ties"))
    killed_driver(models, tmp_path / "out", first, cluster)
    record = run(made, tmp_path / "out", executor=then, ray_address=cluster, resume=True)
    assert record.parts_kept > 0
    run(made, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "parameters"),
    [("ties", {}), ("ties", {"trim": "tensor"}), ("task_arithmetic", {}), ("slerp", {})],
)
def test_nan_on_a_cluster_is_named_as_here_all_of_it(connected, tmp_path, method, parameters):
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "a", "b"):
        tensors = {f"layers.{k}.weight": torch.randn(99, 99, generator=generator) for k in range(6)}
        if name == "a":
            tensors["layers.1.weight"][5, 5] = torch.nan
        if name == "b":
            tensors["layers.4.weight"][98, 98] = torch.inf
        store(tmp_path / name, tensors)
    made, problems = small_blocks(recipe(tmp_path, method, parameters=parameters)), []
    for executor in ("local", "ray"):
        with pytest.raises(AlliageError) as caught:
            run(made, tmp_path / "out", executor=executor)
        problems.append(caught.value.problems)
    assert problems[0] == problems[1]
    assert [problem.where for problem in problems[1]] == [
        f"{tmp_path / 'a' / 'model.safetensors'}: layers.1.weight",
        f"{tmp_path / 'b' / 'model.safetensors'}: layers.4.weight",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "base"]


def job(made, staging, **changes):
    """What tasks of a merge are sent."""
    content = {
        "key": str(staging), "recipe": made.recipe, "memory": made.memory,
        "shard_bytes": made.shard_bytes, "size": made.block, "subject": subject(made),
        "software": software(), "working": str(staging.parent), "staging": staging,
    }  # fmt: skip
    return tasks.Job(**content | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"software": {**software(), "torch": "1.0"}}, "other versions than in the driver: torch"),
        ({"subject": {"inputs": {"a": [1, 2]}, "output": {}}}, "other inputs than in the driver"),
        ({"shard_bytes": 1_000_000}, "other output than in the driver"),
        ({"working": "/nowhere"}, "/nowhere: No such file"),
        ({}, "all nodes must reach the output"),
    ],
)
def test_a_node_where_things_differ_says_what_and_takes_no_part(models, tmp_path, changes, said):
    answer = tasks.work(job(small_blocks(recipe(models)), tmp_path, **changes), tasks.merge)
    assert answer.error is TransientError
    assert any(said in str(problem) for problem in answer.problems)


def test_a_node_without_the_inputs_names_them(models, tmp_path):
    here = tmp_path / "here"
    here.symlink_to(models)
    sent = job(plan(recipe(here)), tmp_path)
    here.unlink()
    answer = tasks.work(sent, tasks.merge)
    assert answer.error is TransientError
    assert str(here / "base") in str(answer.problems[0])


def test_forks_that_each_see_some_blocks_find_what_one_search_finds():
    """Forks are pickled on their way; rounded values, so that a quota of equals is needed."""
    generator = torch.Generator().manual_seed(0)
    vectors = (torch.randn(2, 5000, generator=generator) * 100).round()
    arguments = {"density": [0.2, 0.7], "kept": "count", "trim": "model"}
    whole, shared = (TrimThresholds(2, 5000, **arguments) for _ in range(2))
    results = []
    for _ in range(4):
        forks = [pickle.loads(pickle.dumps(shared.fork())) for _ in range(3)]
        for place, block in enumerate(vectors.split(300, dim=1)):
            whole.update(block, place)
            forks[place % 3].update(block, place)
        for fork in reversed(forks):
            shared.absorb(pickle.loads(pickle.dumps(fork)))
        results.append((whole.result(), shared.result()))
    assert all(one == other for one, other in results)
    found = results[-1][1]
    for row, limit, quotas, kept in zip(
        vectors.abs(), found["thresholds"], zip(*found["quota"], strict=True), (1000, 3500),
        strict=True,
    ):  # fmt: skip
        assert int((row > limit).sum()) + sum(quotas) == kept


def test_a_new_run_waits_for_tasks_of_the_one_before(tmp_path, monkeypatch):
    layout = plan_layout([("weight", "F32", (2,))])
    (tmp_path / "model.safetensors").touch()
    with (tmp_path / "model.safetensors").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        monkeypatch.setattr("alliage.merging.engine.distributed._PATIENCE", 0.1)
        with pytest.raises(TransientError, match="still writing"):
            await_tasks(tmp_path, layout)
        monkeypatch.undo()
        released = threading.Timer(0.2, fcntl.flock, [file, fcntl.LOCK_UN])
        released.start()
        await_tasks(tmp_path, layout)
        released.join()


def test_without_ray_the_command_says_how_to_get_it(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["merge", "--method", "average", models / "a", models / "b", "-o", tmp_path / "out"]
    code, said = command(monkeypatch, capsys, *words, "--on", "ray")
    assert code == 2
    assert 'pip install "alliage[ray]"' in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named_and_harms_no_interrupted_run(models, tmp_path):
    pytest.importorskip("ray", reason="pip install 'alliage[ray]'")
    killed_driver(models, tmp_path / "out", "local", None)
    before = files(tmp_path)
    made = small_blocks(recipe(models, "ties"))
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:1: cannot be reached"):
        run(made, tmp_path / "out", executor="ray", ray_address="127.0.0.1:1", resume=True)
    assert files(tmp_path) == before


def test_a_cluster_computes_on_cpus(models, tmp_path):
    with pytest.raises(UsageError, match="device cpu"):
        run(plan(recipe(models)), tmp_path / "out", executor="ray", device="cuda")
