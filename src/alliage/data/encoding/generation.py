"""Prompts and targets as language models take them: decoders alone, and encoder-decoders.

Rank classification (T-Few, arXiv:2205.05638): a model answers a multiple-choice question with the
choice whose tokens it finds likeliest after the prompt, on average over the tokens. It is trained
on the text of the right choice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from alliage.data.encoding.forms import AT_ONCE, IGNORED, Features, padded
from alliage.data.task import Example, Kind


class GenerativeEncoder(ABC):
    """Prepares prompts and targets for a language model.

    Attributes:
        truncated: how many of the examples encoded so far were cut at the longest length.
    """

    def __init__(self, tokenizer: Any, kind: Kind, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.truncated = 0
        self._ranks = kind == "multiple-choice"
        self._max_length = min(max_length, tokenizer.model_max_length)

    def encode(self, examples: Sequence[Example]) -> list[Features]:
        """Rows to train on: the prompt, and the target (or the right choice) as labels.

        Examples whose label is hidden are prompts alone.
        """
        if not examples or examples[0].label is None:
            return self.encode_prompts(examples)
        targets = [
            example.inputs[1][example.label] if self._ranks else example.label
            for example in examples
        ]
        rows, cut = self._rows([example.inputs[0] for example in examples], targets)
        self.truncated += sum(cut)
        return rows

    def encode_choices(self, examples: Sequence[Example]) -> list[list[Features]]:
        """Rows to rank: for each example one row for each of its choices, in their order."""
        prompts = [example.inputs[0] for example in examples for _ in example.inputs[1]]
        choices = [choice for example in examples for choice in example.inputs[1]]
        rows, cut = self._rows(prompts, choices)
        grouped, start = [], 0
        for example in examples:
            end = start + len(example.inputs[1])
            grouped.append(rows[start:end])
            self.truncated += any(cut[start:end])
            start = end
        return grouped

    def encode_prompts(self, examples: Sequence[Example], *, room: int = 0) -> list[Features]:
        """Rows to write from: the prompt alone.

        Args:
            examples: of either kind.
            room: tokens that the text of a decoder must find free within the longest length.
        """
        rows, cut = self._prompts([example.inputs[0] for example in examples], room)
        self.truncated += sum(cut)
        return rows

    def collate(
        self, encoded: Sequence[Mapping[str, Any]], *, left: bool = False
    ) -> dict[str, torch.Tensor]:
        """Pad to the longest of the batch.

        Args:
            encoded: rows that one method gave.
            left: pad at the left, as a decoder that writes on from the prompt needs it.
        """
        fill = {
            "input_ids": self.tokenizer.pad_token_id,
            "attention_mask": 0,
            "labels": IGNORED,
        }
        return {
            name: padded([row[name] for row in encoded], fill[name], left=left)
            for name in encoded[0]
        }

    @abstractmethod
    def _prompts(self, prompts: Sequence[str], room: int) -> tuple[list[Features], list[bool]]:
        """A row for each prompt, and whether it was cut."""

    @abstractmethod
    def _rows(
        self, prompts: Sequence[str], targets: Sequence[str]
    ) -> tuple[list[Features], list[bool]]:
        """A row for each prompt and its target, and whether it was cut."""


class CausalEncoder(GenerativeEncoder):
    """For decoders: the prompt and the target in one text; labels are ignored on the prompt.

    Prompt and target are tokenised together, with a space between them where neither has one. A
    row that is too long loses the start of its prompt, then the end of its target. Targets of
    text-generation end with the tokenizer's end token; choices do not, as nothing says that the
    text ends there. A text without a prompt follows the tokenizer's start token, so that its first
    token is predicted too.
    """

    def _prompts(self, prompts: Sequence[str], room: int) -> tuple[list[Features], list[bool]]:
        rows, cut = [], []
        for prefix, prompt, _ in self._split(prompts, [""] * len(prompts)):
            kept = max(1, self._max_length - room - len(prefix))
            cut.append(len(prompt) > kept)
            ids = prefix + prompt[-kept:]
            rows.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
        return rows, cut

    def _rows(
        self, prompts: Sequence[str], targets: Sequence[str]
    ) -> tuple[list[Features], list[bool]]:
        end = self.tokenizer.eos_token_id
        rows, cut = [], []
        for prefix, prompt, target in self._split(prompts, targets):
            if not self._ranks and end is not None:
                target = [*target, end]
            room = self._max_length - len(prefix)
            cut.append(len(prompt) + len(target) > room)
            target = target[:room]
            kept = min(room - len(target), len(prompt))
            given = prefix + prompt[len(prompt) - kept :]
            rows.append(
                {
                    "input_ids": given + target,
                    "attention_mask": [1] * len(given + target),
                    "labels": [IGNORED] * len(given) + target,
                }
            )
        return rows, cut

    def _split(
        self, prompts: Sequence[str], targets: Sequence[str]
    ) -> list[tuple[list[int], list[int], list[int]]]:
        """Ids of each text: what the tokenizer puts first, the prompt, the target."""
        texts = [
            prompt + _space(prompt, target) + target
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        start = self.tokenizer.bos_token_id
        parts = []
        for first in range(0, len(texts), AT_ONCE):
            batch = self.tokenizer(
                texts[first : first + AT_ONCE], return_offsets_mapping=True,
                return_special_tokens_mask=True, verbose=False,
            )  # fmt: skip
            for index, ids in enumerate(batch["input_ids"]):
                specials = batch["special_tokens_mask"][index]
                body = [place for place, special in enumerate(specials) if not special]
                prefix = ids[: body[0]] if body else []
                length = len(prompts[first + index])
                ends = [end for _, end in batch["offset_mapping"][index]]
                # A token over the border, as of a space and a word, belongs to the target.
                inside = [place for place in body if ends[place] <= length]
                beyond = body[len(inside) :]
                if not prefix and not inside and start is not None:
                    prefix = [start]
                parts.append((prefix, [ids[p] for p in inside], [ids[p] for p in beyond]))
        return parts


class Seq2SeqEncoder(GenerativeEncoder):
    """For encoder-decoders: the prompt goes to the encoder, the target to the decoder as labels.

    Either is cut at its end where it is too long.
    """

    def _prompts(self, prompts: Sequence[str], room: int) -> tuple[list[Features], list[bool]]:  # noqa: ARG002  the decoder's text is its own
        ids, cut = self._tokenise(prompts)
        return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids], cut

    def _rows(
        self, prompts: Sequence[str], targets: Sequence[str]
    ) -> tuple[list[Features], list[bool]]:
        sources, cut_sources = self._tokenise(prompts)
        labels, cut_labels = self._tokenise(targets, target=True)
        rows = [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
            for ids, label in zip(sources, labels, strict=True)
        ]
        return rows, [a or b for a, b in zip(cut_sources, cut_labels, strict=True)]

    def _tokenise(
        self, texts: Sequence[str], *, target: bool = False
    ) -> tuple[list[list[int]], list[bool]]:
        ids: list[list[int]] = []
        cut: list[bool] = []
        for first in range(0, len(texts), AT_ONCE):
            given = {"text_target" if target else "text": list(texts[first : first + AT_ONCE])}
            batch = self.tokenizer(**given, truncation=True, max_length=self._max_length)
            ids += batch["input_ids"]
            cut += [bool(encoding.overflowing) for encoding in batch.encodings]
        return ids, cut


def _space(prompt: str, target: str) -> str:
    apart = not prompt or prompt[-1].isspace() or not target or target[0].isspace()
    return "" if apart else " "
