"""Other projects' real functions, asked in an environment of their own (`make peers`).

The scripts beside this file run there, not here: one for each project, named after what it asks.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class Question:
    """A call of one function of a peer's script: its tensors and its other arguments."""

    function: str
    tensors: dict[str, torch.Tensor]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peers:
    """The peers' environment: the folder of its programs."""

    programs: Path

    def run(self, *command: object, cwd: Path | None = None) -> str:
        """Run a program of that environment; what it printed, on both streams."""
        name, *rest = map(str, command)
        done = subprocess.run(
            [self.programs / name, *rest],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            timeout=300,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def ask(
        self, script: str, questions: dict[str, Question], folder: Path
    ) -> dict[str, torch.Tensor]:
        """Ask a peer's script all questions at once, since a peer takes seconds to import.

        Args:
            script: its name in this folder.
            questions: by a name without "/".
            folder: an empty one, for the files that carry questions and answers.

        Returns:
            What the peer's functions returned, by the questions' names.
        """
        save_file(
            {
                f"{name}/{part}": tensor.clone(memory_format=torch.contiguous_format)
                for name, question in questions.items()
                for part, tensor in question.tensors.items()
            },
            folder / "in.safetensors",
        )
        calls = {
            name: {"function": question.function, "arguments": question.arguments}
            for name, question in questions.items()
        }
        (folder / "in.json").write_text(json.dumps(calls))
        self.run("python", SCRIPTS / script, folder / "in.json", folder / "out.safetensors")
        return load_file(folder / "out.safetensors")
