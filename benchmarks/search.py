"""A search over the 69 points of a paper's grid: in memory, and by merging to disk and loading.

Answers to the tasks take the same time either way and are timed apart.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._report import report

TUNED = ("a", "b", "c", "d")
LABELS = ("no", "yes")
ON_DISK = 7  # points that are merged to disk: one of every nine
SETTINGS: dict[str, Any] = {  # of transformers' BertConfig, 34 million parameters
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "vocab_size": 16384,
}


def main() -> None:
    """Time every point in memory and some by files, in turn, and see that they score the same."""
    with tempfile.TemporaryDirectory() as scratch:
        _make_models(Path(scratch))
        _compare(Path(scratch))


def _compare(home: Path) -> None:
    import torch

    from alliage.checkpoints import open as open_checkpoint
    from alliage.evaluation import load_classifier
    from alliage.evaluation.scoring import Settings, ask
    from alliage.merging import parse_recipe, plan, run
    from alliage.search.candidates import Candidates
    from alliage.search.questions import questions_of
    from alliage.search.space import Search, preset_spaces

    threads = torch.get_num_threads()
    models = [str(home / name) for name in TUNED]
    recipe = parse_recipe({"method": "ties", "base": str(home / "base"), "models": models})
    space = Search(recipe, preset_spaces("yadav-2023-ties", recipe))
    points = [space.recipe_at(point) for point in space.grid() or ()]
    tasks = [_task("one"), _task("two")]
    heads = {"one": "a", "two": "b"}
    asked = questions_of(tasks, heads=heads)
    times: dict[str, list[float]] = {
        key: [] for key in ("start", "memory", "answers", "merge", "load")
    }

    def timed(key: str, work: Any, *given: Any, **named: Any) -> Any:
        started = time.perf_counter()
        found = work(*given, **named)
        times[key].append(time.perf_counter() - started)
        return found

    out = home / "merged"
    candidates = timed("start", Candidates, points[0], asked, home, threads=threads)
    for number, point in enumerate(points):
        timed("memory", lambda p=point: candidates.held.merge_into(
            candidates.targets, candidates.plan(p)))  # fmt: skip
        score = timed("answers", candidates.ask)
        if number % (len(points) // ON_DISK) or len(times["merge"]) == ON_DISK:
            continue
        timed("merge", lambda p=point: run(plan(p, out=out, threads=threads), out))
        with open_checkpoint(out) as checkpoint:
            loaded = timed("load", lambda: [
                load_classifier(checkpoint, task, head=heads[task.name]) for task in tasks
            ])  # fmt: skip
        by_files = tuple(
            question.measure(ask(model, question.examples, Settings()))
            for question, model in zip(asked, loaded, strict=True)
        )
        assert by_files == score.by_task, f"{number}: {by_files} by files, {score.by_task} here"
        del loaded
        shutil.rmtree(out)
    _report(times, len(points))


def _report(times: dict[str, list[float]], points: int) -> None:
    disk = statistics.mean(times["merge"]) + statistics.mean(times["load"])
    each = statistics.mean(times["memory"])
    answers = statistics.mean(times["answers"])
    ways = {
        "to disk and loaded": disk,
        "in memory": each,
        "in memory, with the start": each + sum(times["start"]) / points,
    }
    rows = [
        {
            "way": way,
            "merge, seconds a point": f"{merge:.3f}",
            "ratio": f"{disk / merge:.1f}",
            "merge and answers": f"{merge + answers:.3f}",
            "ratio of both": f"{(disk + answers) / (merge + answers):.1f}",
        }
        for way, merge in ways.items()
    ]
    note = (
        f"TIES of {len(TUNED)} models with two tasks' heads at {points} points (k, λ): means, in "
        "memory of all, where the passes for a new k are spread over its points, to disk of "
        f"{len(times['merge'])} points, loaded once for each task. The start is one merge to disk "
        "and its loading. Scores are the same."
    )
    report("search", "A search over a grid", rows, note=note, details={"seconds": times})


def _task(name: str) -> Any:
    from alliage.data import Example, Task

    words = [f"w{number}" for number in range(40)]
    examples = tuple(
        Example((" ".join(words[start : start + 6]),), start % 2) for start in range(8)
    )
    return Task(name, "sequence-classification", LABELS, {"validation": examples})


def _make_models(home: Path) -> None:
    """A base without a head and models tuned from it, as noise."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        PreTrainedTokenizerFast,
    )

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: n for n, word in enumerate([*special, *(f"w{n}" for n in range(40))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    labels = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: place for place, label in enumerate(LABELS)},
    }
    torch.manual_seed(0)
    base = BertModel(BertConfig(**SETTINGS))
    base.save_pretrained(home / "base")
    wrapped.save_pretrained(home / "base")
    for name in TUNED:
        model = BertForSequenceClassification(BertConfig(**SETTINGS, **labels))
        model.bert.load_state_dict(base.state_dict())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn(parameter.shape)
        model.save_pretrained(home / name)
        wrapped.save_pretrained(home / name)
