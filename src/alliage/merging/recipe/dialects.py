"""Other projects' readings of the methods, as parameters.

Each is what that project's own function computes (held equal to it by tests/real/test_dialects.py).
A recipe's own parameters go before its dialect's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

Dialect = Literal["paper", "mergekit", "peft", "fusion_bench", "sd_mecha"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

_PRESETS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    # mergekit 0.1.5. Which of equal magnitudes stay is not defined there; here the first do.
    ("mergekit", "ties"): {
        "density": 1.0, "trim": "tensor", "kept": "count_or_one", "zero": "positive",
        "combine": "signed_mean",
    },
    ("mergekit", "task_arithmetic"): {"scale": 1.0},
    ("mergekit", "dare_ties"): {"density": 1.0, "rescale": "l1", "combine": "sum"},
    ("mergekit", "dare_linear"): {"density": 1.0, "rescale": "l1"},
    ("mergekit", "della"): {"density": 1.0, "rescale": "l1", "combine": "signed_mean"},
    ("mergekit", "della_linear"): {"density": 1.0, "rescale": "l1"},
    ("mergekit", "breadcrumbs"): {"density": 1.0},
    ("mergekit", "breadcrumbs_ties"): {"density": 1.0, "combine": "sum"},
    ("mergekit", "sce"): {"density": 1.0, "floor": 1e-6},
    ("mergekit", "model_stock"): {"bounded": False},
    ("mergekit", "ram_plus"): {"r": 0.1, "alpha": 0.2, "over": "tensor"},
    # PEFT 0.21: peft.utils.merge_utils. Its magnitude_prune is ours.
    ("peft", "ties"): {
        "trim": "tensor", "kept": "count", "vote": "sum", "zero": "positive",
        "combine": "sum_by_count",
    },
    ("peft", "task_arithmetic"): {"scale": 1.0},
    ("peft", "factor_average"): {"rule": "task_arithmetic", "root": True},
    ("peft", "dare_ties"): {"vote": "sum", "combine": "sum_by_count"},
    # FusionBench 0.2.33: TiesMergingAlgorithm, TaskArithmeticAlgorithm; its MagMax is ours.
    ("fusion_bench", "ties"): {"density": 0.2, "combine": "sum", "scale": 0.3},
    ("fusion_bench", "task_arithmetic"): {"scale": 0.3},
    ("fusion_bench", "wudi"): {"steps": 400},
    # sd-mecha 1.1: add_difference_ties; vote_sgn=True there is vote: sum here.
    ("sd_mecha", "ties"): {
        "density": 1.0, "trim": "tensor", "kept": "kth", "vote": "count", "zero": "drop",
    },
    ("sd_mecha", "task_arithmetic"): {"scale": 1.0},
    ("sd_mecha", "geometric_median"): {"over": "tensor"},
    ("sd_mecha", "model_stock"): {"bounded": False},
}  # fmt: skip


def preset(dialect: Dialect, method: str) -> Mapping[str, Any]:
    """The parameters by which a dialect differs from a method's own defaults."""
    return _PRESETS.get((dialect, method), {})
