"""Where training is reported to: nowhere, unless the recipe names a tracker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alliage.errors import Problem, UsageError, nearest

# Where the package has another name than the tracker.
_PACKAGES = {
    "azure_ml": "azureml-core mlflow",
    "comet_ml": "comet-ml",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
}


def refuse_missing(names: Sequence[str]) -> None:
    """Refuse trackers that transformers does not know, or whose package is not installed.

    Raises:
        UsageError: all of them, with the command that installs them.
    """
    if not names:
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    problems = []
    for name in names:
        where = f"report_to: {name}"
        if name not in INTEGRATION_TO_CALLBACK:
            fix = nearest(name, INTEGRATION_TO_CALLBACK)
            problems.append(Problem(where, "no tracker that transformers knows.", fix))
            continue
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError):  # transformers', which asks for the package
            fix = f"Install it: pip install {_PACKAGES.get(name, name)}"
            problems.append(Problem(where, "is not installed.", fix))
    if problems:
        raise UsageError(problems)


def keep_logs(callbacks: Iterable[Any], out: Path) -> None:
    """Let trackers that write files do so in `runs` beside an output, not among the run's states.

    Args:
        callbacks: of the Trainer.
        out: of the run, by whose name its logs go.
    """
    for callback in callbacks:
        if getattr(callback, "logging_dir", "") is None:  # TensorBoard's, unless the user says
            callback.logging_dir = str(out.parent / "runs" / out.name)
