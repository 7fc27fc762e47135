"""Metrics of written texts against the expected ones. Pure: texts in, numbers out."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

ROUGE = ("rouge1", "rouge2", "rougeL")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"[^\W_]+")


def exact_match(expected: str, written: str) -> bool:
    """Whether two texts are the same after SQuAD's normalisation (arXiv:1606.05250).

    Lower case, without ASCII punctuation, without the words a, an and the, white space made one
    blank. English only where articles matter.

    >>> exact_match("The Eiffel Tower", "eiffel tower.")
    True
    """
    return _normalised(expected) == _normalised(written)


def rouge(expected: Sequence[str], written: Sequence[str]) -> dict[str, list[float]]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004), through rouge-score.

    No stemmer, which would know English only. Words are runs of letters and digits of any script;
    rouge-score's own are of ASCII, and cut "été" to "t". Of English texts both are the same.

    Args:
        expected: [n] texts.
        written: [n] texts.

    Returns:
        rouge1, rouge2, rougeL -> [n], in [0, 1].
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class Words(Tokenizer):  # type: ignore[misc]  # rouge-score is untyped
        def tokenize(self, text: str) -> list[str]:
            return _WORD.findall(text.lower())

    scorer = RougeScorer(ROUGE, tokenizer=Words())
    scores = [scorer.score(one, other) for one, other in zip(expected, written, strict=True)]
    return {name: [score[name].fmeasure for score in scores] for name in ROUGE}


def _normalised(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
