"""Where training is reported to: nowhere, unless the recipe names a tracker."""

from __future__ import annotations

from collections.abc import Sequence

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
