"""Alliage: measure, merge, prune, tune and check fine-tuned models that share one ancestor.

The verbs are loaded on first use, so that `import alliage` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_VERBS = {
    "open": "alliage.checkpoints",
    "compare": "alliage.geometry",
    "interference": "alliage.geometry.interference.interfering",
    "forecast": "alliage.forecasting.asking",
    "merge": "alliage.merging",
    "apply": "alliage.merging.applying",
    "signs": "alliage.merging.signs",
    "prune": "alliage.pruning",
    "tune": "alliage.tuning",
    "extract": "alliage.tuning",
    "evaluate": "alliage.evaluation",
    "calibrate": "alliage.evaluation",
}
_PACKAGES = (
    "checkpoints", "vectors", "geometry", "merging", "pruning",
    "tuning", "data", "evaluation", "statistics", "search", "studies",
    "report", "testing",
)  # fmt: skip

if TYPE_CHECKING:
    from alliage.checkpoints import open as open  # noqa: A004
    from alliage.evaluation import calibrate as calibrate
    from alliage.evaluation import evaluate as evaluate
    from alliage.forecasting.asking import forecast as forecast
    from alliage.geometry import compare as compare
    from alliage.geometry.interference.interfering import interference as interference
    from alliage.merging import merge as merge
    from alliage.merging.applying import apply as apply
    from alliage.merging.signs import signs as signs
    from alliage.pruning import prune as prune
    from alliage.tuning import extract as extract
    from alliage.tuning import tune as tune

__all__ = [
    "__version__",
    "apply",
    "calibrate",
    "compare",
    "evaluate",
    "extract",
    "forecast",
    "interference",
    "merge",
    "open",
    "prune",
    "signs",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return getattr(import_module(_VERBS[name]), name)
    if name in _PACKAGES:
        return import_module(f"alliage.{name}")
    raise AttributeError(f"module 'alliage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
