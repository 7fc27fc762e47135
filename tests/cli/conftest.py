"""A workspace like a user's: models, adapters, data, recipes, results."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SENTENCES = {
    "sentiment-data": {
        "positive": ["the film was good", "a great book", "very good", "the book is great"],
        "negative": ["the film was bad", "an awful book", "very bad", "the book is not good"],
    },
    "topics-data": {
        "weather": ["the sun is long", "a short rain", "rain"],
        "sport": ["the goal was great", "a good team", "goal"],
        "arts": ["the film", "a long book", "book"],
    },
}


@pytest.fixture(scope="session")
def _template(family, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("workspace") / "home"
    shutil.copytree(family, home)
    for adapter in ("sentiment-lora", "topics-lora"):
        path = home / adapter / "adapter_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps(settings | {"base_model_name_or_path": "base"}))
    for name, sentences in SENTENCES.items():
        (home / name).mkdir()
        rows = [f"{text}\t{label}" for label, texts in sentences.items() for text in texts]
        for split in ("train", "validation"):
            (home / name / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    (home / "merge.yml").write_text(
        "method: ties\nbase: base\nmodels: [sentiment, topics]\nparameters: {density: 0.2}\n"
    )
    (home / "tune.yml").write_text(
        "model: base\ntask: sentiment-data\nmethod: full\nepochs: 1\nlearning_rate: 1.0e-3\n"
    )
    return home


@pytest.fixture
def workspace(_template, tmp_path) -> Path:
    """A fresh copy for each test, so that outputs do not meet."""
    home = tmp_path / "workspace"
    shutil.copytree(_template, home)
    return home


@dataclass
class Done:
    """How a command line ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def alliage(workspace, monkeypatch, capsys) -> Callable[[str], Done]:
    """Run a command line in the workspace: the program's own main, in this process."""
    from alliage.cli import main

    monkeypatch.chdir(workspace)
    monkeypatch.setenv("COLUMNS", "120")

    def run(line: str) -> Done:
        words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", words if words[0] == "alliage" else ["alliage", *words])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run
