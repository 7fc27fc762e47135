"""What mergekit's own planner makes of its YAML: each tensor's parameters, nothing merged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mergekit.architecture import get_architecture_info
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache, SaveTensor
from mergekit.merge import _model_out_config
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner


def plan(content: dict[str, Any]) -> dict[str, Any]:
    """Tensor -> its models in order, their parameters and the shared ones; or what went wrong."""
    options = MergeOptions()
    try:
        config = MergeConfiguration.model_validate(content)
        LoaderCache().setup(options=options)
        architecture = get_architecture_info(config, options)
        planner = MergePlanner(
            config, architecture, options, _model_out_config(config, architecture)
        )
        tasks = planner.plan_to_disk("nothing is written")
    except Exception as error:
        return {"error": str(error)}
    return {
        task.tensor_name: {
            "models": [str(model) for model in task.tensor_task.model_order],
            "shared": dict(task.tensor_task.parameters.items()),
            "own": {
                str(model): dict(values.items())
                for model, values in task.tensor_task.input_parameters.items()
            },
        }
        for task in tasks
        if isinstance(task, SaveTensor)
    }


if __name__ == "__main__":
    asked, out = map(Path, sys.argv[1:])
    out.write_text(json.dumps([plan(content) for content in json.loads(asked.read_text())]))
