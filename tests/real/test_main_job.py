"""The main job on real text, through the command line: tuned, compared, merged, pruned, judged."""

from __future__ import annotations

import io
import json
import shlex
import sys
from contextlib import redirect_stdout

import pytest
import torch

from alliage.cli import main
from alliage.data import load_task

pytestmark = [pytest.mark.real, pytest.mark.slow]

# The share of the most frequent label in each validation split, by the data's own description.
MAJORITY = {"subj": 541 / 1000, "trec": 135 / 498, "ag_news": 157 / 600}
MERGED = ("average", "task_arithmetic", "ties", "factor_average")
LIMIT = 200


def alliage(line: str) -> str:
    """Run a command line in this process; returns what it printed on stdout."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as stdout:
        patch.setattr(sys, "argv", ["alliage", *shlex.split(line)])
        code: object = 0
        try:
            main()
        except SystemExit as leave:
            code = leave.code
    assert not code, line
    return stdout.getvalue()


def accuracies(line: str) -> dict[tuple[str, str], float]:
    """Run `alliage evaluate ... --json`; (model, task) -> accuracy."""
    document = json.loads(alliage(f"{line} --json"))
    assert not document["left_out"]
    return {
        (row["model"], row["task"]): row["value"]
        for tables in document["scores"]
        for row in tables["scores"]
        if row["metric"] == "accuracy"
    }


@pytest.fixture(scope="module")
def home(minilm, data_folder, tmp_path_factory):
    """Three adapters, a full model and what is made of them, in one folder."""
    home = tmp_path_factory.mktemp("main-job")
    (home / "base").symlink_to(minilm)
    (home / "data").symlink_to(data_folder.resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        settings = (
            f"model: base\nepochs: 1\nbatch_size: 8\nmax_length: 48\ntrain_limit: {LIMIT}\n"
            "warmup: 0.1\nhead_epochs: 3\nhead_learning_rate: 1.0e-2\nlearning_rate: 1.0e-3\n"
        )
        for task in MAJORITY:
            (home / f"{task}.yml").write_text(f"{settings}task: data/{task}\nmethod: lora\n")
            alliage(f"tune {task}.yml -o {task}")
        for method in MERGED:
            alliage(f"merge --method {method} --base base {' '.join(MAJORITY)} -o {method}")
        alliage("prune average --strategy first --keep 4 -o shallow")
        yield home


def test_adapters_beat_the_majority_class(home):
    found = {}
    for task in MAJORITY:
        found |= accuracies(f"evaluate {task} --task data/{task} --limit {LIMIT} -o results")
    error = (0.25 / LIMIT) ** 0.5
    above = [task for task in MAJORITY if found[task, task] > MAJORITY[task] + 3 * error]
    assert len(above) >= 2, found


def test_adapters_are_compared(home):
    document = json.loads(
        alliage(f"compare --base base {' '.join(MAJORITY)} --modules q,v -o results --json")
    )
    assert document["models"] == list(MAJORITY)
    assert len(document["modules"]) == 2 * 6
    geodesic = torch.tensor(document["metrics"]["geodesic"]["mean"])
    assert torch.equal(geodesic, geodesic.T)
    # Rank 8: eight angles of at most a right one.
    assert 0 < geodesic[0, 1] < 8**0.5 * torch.pi / 2


@pytest.mark.parametrize("method", [*MERGED, "shallow"])
def test_what_was_made_is_as_recorded_and_answers_the_same_in_transformers(home, method):
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    alliage(f"verify {method}")
    head = home / method / "heads" / "trec"
    labels = json.loads((head / "head.json").read_text())["labels"]
    model, info = AutoModelForSequenceClassification.from_pretrained(
        home / method, num_labels=len(labels), output_loading_info=True
    )
    fresh = {"classifier.weight", "classifier.bias"}
    # Of an adapter transformers tells what the adapter lacks, not its base.
    assert set(info["missing_keys"]) == (set() if method == "factor_average" else fresh)
    assert not info["unexpected_keys"]
    assert model.config.num_hidden_layers == (4 if method == "shallow" else 6)
    given = load_file(head / "head.safetensors")
    assert set(given) == fresh
    model.load_state_dict(given, strict=False)
    examples = load_task(home / "data" / "trec").splits["validation"]
    tokenizer = AutoTokenizer.from_pretrained(home / method)
    right = 0
    with torch.inference_mode():
        for start in range(0, len(examples), 64):
            batch = examples[start : start + 64]
            texts = [example.inputs[0] for example in batch]
            given = tokenizer(texts, padding=True, return_tensors="pt")
            predicted = model.eval()(**given).logits.argmax(dim=-1)
            right += int((predicted == torch.tensor([e.label for e in batch])).sum())
    found = accuracies(f"evaluate {method} --task data/trec")
    assert found[method, "trec"] == right / len(examples)


def test_merged_and_pruned_models_are_judged_on_every_task(home):
    tasks = " ".join(f"--task data/{task}" for task in MAJORITY)
    found = accuracies(f"evaluate {' '.join(MERGED)} shallow {tasks} --limit 100 -o results")
    assert set(found) == {(model, task) for model in (*MERGED, "shallow") for task in MAJORITY}


def test_report_tells_of_all(home):
    alliage("report results -o report.html")
    page = (home / "report.html").read_text()
    assert all(name in page for name in (*MAJORITY, *MERGED, "shallow"))
