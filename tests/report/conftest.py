from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alliage.studies.results import write_table

TASKS = ("cola", "imdb", "mrpc", "rte", "sst2", "yelp")
SENTIMENT = {"imdb", "sst2", "yelp"}
SINGLES = tuple(f"minilm-{task}" for task in TASKS)
COMPARED = (*SINGLES, "minilm-sst2-lora", "minilm-<script>alert(1)</script>")
MERGED = ("merged-average", "merged-task-arithmetic", "merged-ties-0.2")
PRUNED = ("minilm-sst2-6-layers", "minilm-sst2-best-4")
COMPARE = (
    "alliage compare --base minilm minilm-cola minilm-imdb --metrics l2,cosine,geodesic -o results"
)
EVALUATE = "alliage evaluate minilm-sst2 --task sst2 -o results"

Rows = list[Mapping[str, Any]]


def distances(models: tuple[str, ...] = COMPARED, layers: int = 12) -> Rows:
    """Models of one family of tasks are nearer, queries nearer than values, depth drives apart."""
    random = np.random.default_rng(0)
    rows: Rows = []
    for first, second in combinations(models, 2):
        alike = all(any(task in name for task in SENTIMENT) for name in (first, second))
        for layer in range(layers):
            for kind in ("query", "value"):
                depth = (layer + 1) / layers
                near = 0.55 if alike else 0.85
                apart = (
                    near + 0.1 * depth + 0.04 * random.standard_normal() - 0.05 * (kind == "query")
                )
                for metric, largest in (("l2", 0.9), ("cosine", 1.0), ("geodesic", 4.44)):
                    rows.append(
                        {
                            "metric": metric, "first": first, "second": second,
                            "module": f"encoder.layer.{layer}.attention.self.{kind}",
                            "layer": layer, "kind": kind, "value": float(apart * largest),
                        }
                    )  # fmt: skip
    return rows


def inclusion(names: tuple[str, ...] = SINGLES, layers: int = 2) -> Rows:
    """Each model lies in all that follow it, the nearer the more."""
    rows: Rows = []
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            share = 0.9 - 0.1 * (j - i) if i < j else 0.2
            for layer in range(layers if i != j else 0):
                for metric in ("core_energy", "rec"):
                    rows.append(
                        {
                            "metric": metric, "model": first, "into": second,
                            "module": f"encoder.layer.{layer}.attention.self.value",
                            "layer": layer, "kind": "value", "value": share + 0.02 * layer,
                            "chance": 0.1, "chance_sd": 0.01,
                        }
                    )  # fmt: skip
    return rows


def spectra(names: tuple[str, ...] = SINGLES, layers: int = 2, rank: int = 8) -> Rows:
    """The first model's spectrum falls fastest."""
    return [
        {
            "model": name, "module": f"encoder.layer.{layer}.attention.self.{kind}",
            "layer": layer, "kind": kind, "direction": direction,
            "value": (1 + layer) * math.exp(-direction / (1 + index)),
        }
        for index, name in enumerate(names)
        for layer in range(layers)
        for kind in ("query", "value")
        for direction in range(rank)
    ]  # fmt: skip


def interference(names: tuple[str, ...] = SINGLES) -> Rows:
    """Signs conflict the more, the more is kept; less in pairs than among all."""
    rows: Rows = []
    for kept in (0.1, 0.2, 1.0):
        everyone = [("conflict", len(names), "", "", kept / 2 + 0.3), ("random", len(names), "",
                    "", 0.9), ("conflict", 2, "", "", 0.25)]  # fmt: skip
        pairs = [("overlap", 2, *pair, kept) for pair in combinations(names, 2)]
        for measure, count, first, second, value in [*everyone, *pairs]:
            rows.append(
                {
                    "measure": measure, "by": "model", "group": "model", "step": "",
                    "top_k": kept, "models": count, "first": first, "second": second,
                    "value": value,
                }
            )  # fmt: skip
    rows.append({**rows[0], "by": "layer", "group": "0", "value": 0.123456})
    rows.append({**rows[0], "measure": "magnitude", "step": "trimmed", "value": 7e-5})
    return rows


def forecast(names: tuple[str, ...] = SINGLES) -> Rows:
    """Each pair costs both tasks; the last has no forecast."""
    rows: Rows = [
        {
            "models": f"{first} + {second}", "task": task, "method": "average", "needs": "weights",
            "loss": 1.5 + index, "low": 0.5, "high": 4.0 + index, "refused": "",
        }
        for index, (first, second) in enumerate(combinations(names, 2))
        for task in (first, second)
    ]  # fmt: skip
    none = dict.fromkeys(("loss", "low", "high"), math.nan)
    return [*rows[:-1], {**rows[-1], **none, "refused": "beyond what was learned from"}]


def models() -> Rows:
    described = [("minilm", "base", "", 12)]
    described += [(name, "single", "full", 12) for name in SINGLES]
    described += [("minilm-sst2-lora", "single", "lora", 12)]
    described += [(name, "merged", name.removeprefix("merged-"), 12) for name in MERGED]
    described += [(PRUNED[0], "pruned", "keep-first", 6), (PRUNED[1], "pruned", "best-n", 4)]
    return [
        {
            "model": name, "role": role, "method": method, "path": f"models/{name}",
            "layers": layers, "parameters": 11_900_000 + 1_774_464 * layers,
            "bytes": 4 * (11_900_000 + 1_774_464 * layers) + 20_000,
        }
        for name, role, method, layers in described
    ]  # fmt: skip


def scores() -> Rows:
    random = np.random.default_rng(1)
    rows: Rows = []
    for row in models():
        for index, task in enumerate(TASKS):
            name, best = row["model"], 0.93 - 0.05 * index
            if row["role"] == "single" and name.split("-")[1] != task:
                continue
            if row["role"] == "pruned" and task != "sst2":
                continue
            loss = {"base": 0.35, "single": 0.0, "merged": 0.05, "pruned": 0.04}[row["role"]]
            accuracy = round((best - loss + 0.02 * random.standard_normal()) * 872) / 872
            error = abs(0.06 + 0.03 * random.standard_normal())
            for metric, value in (("accuracy", accuracy), ("f1", accuracy - 0.01), ("ece", error)):
                rows.append(
                    {
                        "model": name, "task": task, "split": "validation", "metric": metric,
                        "value": float(value), "examples": 872,
                    }
                )  # fmt: skip
    return rows


def reliability() -> Rows:
    random = np.random.default_rng(2)
    rows: Rows = []
    for name, task in sorted({(row["model"], row["task"]) for row in scores()}):
        for index in range(4, 10):
            confidence = index / 10 + 0.05 + 0.01 * random.standard_normal()
            rows.append(
                {
                    "model": name, "task": task, "split": "validation",
                    "low": index / 10, "high": (index + 1) / 10, "confidence": float(confidence),
                    "accuracy": float(min(1, confidence - 0.06 + 0.03 * random.standard_normal())),
                    "examples": int(20 + 400 * (index / 9) ** 6),
                }
            )  # fmt: skip
    return rows


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder as compare and evaluate leave it: every table, twelve models, six tasks."""
    folder = tmp_path_factory.mktemp("results") / "text-classifiers"
    write_table(folder, "distances", distances(), command=COMPARE)
    for table, rows in (("models", models()), ("scores", scores()), ("reliability", reliability())):
        write_table(folder, table, rows, command=EVALUATE)
    return folder
