"""Task metrics, as the field computes them. Pure: answers in, tallies out."""

from __future__ import annotations

from collections.abc import Sequence

from alliage.evaluation.tally import Tally, entity_tally
from alliage.evaluation.text_metrics import ROUGE

# What GLUE (arXiv:1804.07461, table 1) reports for each task; of two, their mean counts. MNLI's two
# validation sets are two tasks here. F1 is of the label that GLUE writes as 1.
GLUE = {
    "cola": ("matthews",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
    "mnli": ("accuracy",),
    "mnlim": ("accuracy",),
    "mnlimm": ("accuracy",),
    "mnlimatched": ("accuracy",),
    "mnlimismatched": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
}
CALIBRATION = ("ece", "smce", "pgap")
WORST = "worst_domain"
# What is measured besides only where it is asked for.
CALIBRATION_DETAILS = (
    "dual_smce", "dual_pgap", "lower_distance",
    *(f"{name}_{WORST}" for name in CALIBRATION),
)  # fmt: skip
_SINGLE = ("accuracy", "balanced_accuracy", "f1_macro", "matthews")
# What is measured, by what the answers are. "glue" is measured of tasks named as GLUE's, besides.
METRICS = {
    "two labels": (*_SINGLE, "f1", "precision", "recall", *CALIBRATION),
    "more labels": (*_SINGLE, "precision_macro", "recall_macro", *CALIBRATION),
    "entities": ("accuracy", "precision", "recall", "f1", *CALIBRATION),
    "choices": ("accuracy", *CALIBRATION),
    "numbers": ("pearson", "mse", "spearman"),
    "texts": ("perplexity",),
    "written texts": ("perplexity", "exact_match", *ROUGE),
}
_POSITIVE = ("1", "equivalent", "duplicate", "paraphrase")


def glue_metrics(task: str) -> tuple[str, ...]:
    """The metrics that GLUE reports for a task of this name; none for other tasks.

    >>> glue_metrics("STS-B"), glue_metrics("imdb")
    (('pearson', 'spearman'), ())
    """
    name = task.lower().removeprefix("glue").replace("-", "").replace("_", "").replace("/", "")
    return GLUE.get(name, ())


def positive_label(labels: Sequence[str]) -> int:
    """Of two labels, the one that F1 is of: the one that GLUE writes as 1, else the second.

    >>> positive_label(["equivalent", "not_equivalent"]), positive_label(["negative", "positive"])
    (0, 1)
    """
    return next((index for index, label in enumerate(labels) if label in _POSITIVE), 1)


def count_entities(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Tally:
    """Metrics of entities tagged in IOB2, found by seqeval in each sentence.

    An entity counts when its type and both ends are right. As in conlleval, and unlike seqeval's
    strict mode, a predicted "I-" without a "B-" before it starts an entity.

    Args:
        truth: the tags of each sentence.
        predicted: the same.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    pairs = [(list(true), list(found)) for true, found in zip(truth, predicted, strict=True)]
    entities = [(set(get_entities(true)), set(get_entities(found))) for true, found in pairs]
    return entity_tally(
        tokens=[len(true) for true, _ in pairs],
        right=[sum(map(str.__eq__, true, found)) for true, found in pairs],
        hits=[len(true & found) for true, found in entities],
        predicted=[len(found) for _, found in entities],
        true=[len(true) for true, _ in entities],
    )
