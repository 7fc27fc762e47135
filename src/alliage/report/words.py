"""Names and numbers of the tables as a reader wants them; saved data keep the tables' own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import takewhile

# Scores that are shares or correlations, of which three decimals count.
_SHARES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "dual_pgap": "dual post-processing gap",
    "dual_smce": "dual smooth calibration error",
    "ece": "calibration error",
    "ece_worst_domain": "calibration error on the worst domain",
    "exact_match": "exact match",
    "f1": "F1",
    "f1_macro": "macro F1",
    "glue": "GLUE score",
    "lower_distance": "lower distance to calibration",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "pgap": "post-processing gap",
    "pgap_worst_domain": "post-processing gap on the worst domain",
    "precision": "precision",
    "precision_macro": "macro precision",
    "recall": "recall",
    "recall_macro": "macro recall",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "smce": "smooth calibration error",
    "smce_worst_domain": "smooth calibration error on the worst domain",
    "spearman": "Spearman correlation",
}
_OTHERS = {"mse": "mean squared error"}
_DISTANCES = {
    "angle_sum": "sum of principal angles",
    "asimov": "Asimov distance",
    "binet_cauchy": "Binet–Cauchy distance",
    "chordal": "chordal distance",
    "cosine": "cosine distance",
    "fubini_study": "Fubini–Study distance",
    "geodesic": "geodesic distance",
    "l2": "L2 distance",
    "l2_spectral": "spectral L2 distance",
    "martin": "Martin distance",
    "procrustes": "Procrustes distance",
    "projection_frobenius": "projection Frobenius distance",
    "projection_two": "projection 2-norm distance",
    "rec": "overlap of spectra (REC)",
    "sar": "subspace alignment ratio",
    "spectrum_l1": "L1 of spectra",
    "spectrum_l2": "L2 of spectra",
    "sti": "singular task interference",
    "top_overlap": "overlap of the largest elements",
    "ye_lim": "Ye–Lim distance",
}
_NO_DISTANCES = {"sar", "sign_agreement", "sti", "top_overlap"}  # large does not mean far
_RADIANS = {"angle_sum", "asimov", "fubini_study", "geodesic", "ye_lim"}


def metric_name(metric: str) -> str:
    """What a metric is called in a sentence.

    >>> metric_name("f1_macro"), metric_name("tokens_per_second")
    ('macro F1', 'tokens per second')
    """
    words = _SHARES.get(metric) or _DISTANCES.get(metric) or _OTHERS.get(metric)
    return words or metric.replace("_", " ")


def is_distance(metric: str) -> bool:
    """Whether models are the farther apart the larger this is.

    >>> is_distance("geodesic"), is_distance("sign_agreement")
    (True, False)
    """
    return metric not in _NO_DISTANCES


def metric_label(metric: str) -> str:
    """A metric's name with its unit, where it has one."""
    return metric_name(metric) + (" (radians)" if metric in _RADIANS else "")


def number(value: float, figures: int = 3) -> str:
    """So many significant figures.

    >>> number(1.0), number(0.04567), number(1234.5), number(1234567.0), number(float("nan"))
    ('1.00', '0.0457', '1,230', '1.23e+06', 'n/a')
    """
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:#.{figures}g}".rstrip(".")
    if 10**figures <= abs(float(text)) < 1e6:
        text = f"{float(text):,.0f}"
    return _minus(text)


def score(value: float, metric: str) -> str:
    """A score: three decimals of a share, three significant figures of anything else."""
    if metric in _SHARES and math.isfinite(value):
        return _minus(f"{value:.3f}")
    return number(value)


def signed(value: float) -> str:
    """A difference of shares.

    >>> signed(0.05), signed(-0.00001)
    ('+0.050', '+0.000')
    """
    return _minus(f"{round(value, 3) + 0.0:+.3f}")


def count(number: int, noun: str) -> str:
    """How many there are.

    >>> count(1, "model"), count(2, "model")
    ('1 model', '2 models')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(words: Iterable[str]) -> str:
    """At least one word as a list in a sentence.

    >>> listed("abc")
    'a, b and c'
    """
    every = list(words)
    return every[0] if len(every) == 1 else ", ".join(every[:-1]) + " and " + every[-1]


def several(names: Sequence[str]) -> str:
    """Many names by their first.

    >>> several("abc"), several("abcdefgh")
    ('a, b and c', 'a, b and 6 more')
    """
    return listed(names if len(names) < 4 else [*names[:2], f"{len(names) - 2} more"])


def shared_prefix(names: Iterable[str]) -> str:
    """What all names begin with, up to a colon or a slash; nothing for one name alone.

    >>> shared_prefix(["digits:loop", "digits:line"]), shared_prefix(["sst2", "sst5"])
    ('digits:', '')
    """
    different = sorted(set(names))
    if len(different) < 2:
        return ""
    alike = takewhile(
        lambda pair: pair[0] == pair[1], zip(different[0], different[-1], strict=False)
    )
    common = "".join(letter for letter, _ in alike)
    prefix = common[: max(common.rfind(":"), common.rfind("/")) + 1]
    return prefix if prefix not in different else ""


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
