"""The peers' side of the questions; it runs in their environment and knows nothing of Alliage."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def answer(functions: dict[str, Callable[..., torch.Tensor]]) -> None:
    """Call what `in.json` asks for with the tensors beside it, and write what comes out.

    The command line names `in.json` and the file to write.
    """
    torch.set_num_threads(1)
    asked, out = map(Path, sys.argv[1:])
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(asked.with_suffix(".safetensors")).items():
        name, part = key.split("/", 1)
        tensors.setdefault(name, {})[part] = tensor
    answers = {
        name: functions[call["function"]](**tensors[name], **call["arguments"])
        for name, call in json.loads(asked.read_text()).items()
    }
    # copies, since a peer may return a tensor that it was given
    copies = {n: t.clone(memory_format=torch.contiguous_format) for n, t in answers.items()}
    save_file(copies, out)
