"""Running a language model: how likely it finds texts, which choice it prefers, what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alliage.data import Example
from alliage.data.encoding import IGNORED, GenerativeEncoder
from alliage.errors import AlliageError, Problem, brief
from alliage.evaluation.answers import Answers, OnBatch, batches, chunks, told
from alliage.evaluation.models import Classifier
from alliage.evaluation.quiet import quiet_transformers

MAX_NEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Writing:
    """How a language model did on the examples of a split, in their order.

    Attributes:
        losses: [n], negative log-likelihood of each expected text after its source.
        tokens: [n], how many of its tokens were predicted.
        expected: [n], the texts.
        written: [n], the texts that the model wrote, or nothing where no example has a source.
    """

    losses: NDArray[np.float64]
    tokens: NDArray[np.int64]
    expected: tuple[str, ...]
    written: tuple[str, ...] | None


def rank(
    classifier: Classifier,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    device: str = "cpu",
    on_event: OnBatch | None = None,
) -> Answers:
    """Score the choices of each example by their mean log-likelihood for each token.

    Rank classification with length normalisation, as in T-Few (arXiv:2205.05638): the logits are
    the means, and their softmax says how sure the model is among the choices.

    Raises:
        AlliageError: a likelihood that is NaN, or a right answer that is no choice; the first.
    """
    encoder = _encoder(classifier)
    scores: list[NDArray[np.float64]] = []
    for start, chunk in chunks(classifier, examples, batch_size):
        choices = encoder.encode_choices(chunk)
        rows = [row for each in choices for row in each]
        losses, tokens = _losses(classifier, rows, batch_size, device)
        # A choice without a token of its own is as likely as its prompt: certain.
        means = -losses / np.maximum(tokens, 1)
        ends = np.cumsum([len(each) for each in choices])
        for index, found in enumerate(np.split(means, ends[:-1])):
            example = chunk[index]
            where = f"{classifier.name}: example {start + index + 1} {brief(example.inputs[0])}"
            if not np.isfinite(found).all():
                raise AlliageError(Problem(where, "the likelihood of a choice is NaN."))
            if not 0 <= example.label < len(found):
                what = f"answer {example.label}, but there are {len(found)} choices."
                raise AlliageError(Problem(where, what))
            scores.append(found)
        if on_event is not None:
            on_event(start + len(chunk), len(examples))
    logits = np.full((len(scores), max(map(len, scores))), -np.inf, np.float32)
    for index, found in enumerate(scores):
        logits[index, : len(found)] = found
    truth = np.array([example.label for example in examples])
    count = len(scores)
    domains = told([example.domain for example in examples])
    return Answers(logits, truth, np.arange(count), count, domains)


def write(
    classifier: Classifier,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    max_new_tokens: int = MAX_NEW_TOKENS,
    device: str = "cpu",
    on_event: OnBatch | None = None,
) -> Writing:
    """Measure how likely the expected texts are, and write one's own from the sources.

    Greedy: the likeliest token at each step, until the model ends its text. Decoders' prompts are
    padded at the left. Examples without a source are language modelling: nothing is written.

    Args:
        classifier: a language model.
        examples: sources and expected texts.
        batch_size: examples in one pass.
        max_new_tokens: after which a text ends; of a decoder at most half of its positions.
        device: "cpu" or "cuda".
        on_event: called with (done, total).

    Raises:
        AlliageError: a likelihood that is NaN; the first example.
    """
    encoder = _encoder(classifier)
    losses, tokens, expected = [], [], []
    written: list[str] = []
    writes = any(example.inputs[0] for example in examples)
    for start, chunk in chunks(classifier, examples, batch_size):
        found, counts = _losses(classifier, encoder.encode(chunk), batch_size, device)
        if not np.isfinite(found).all():
            index = int(np.argmin(np.isfinite(found)))
            shown = brief(chunk[index].inputs[0] or chunk[index].label)
            raise AlliageError(
                Problem(
                    f"{classifier.name}: example {start + index + 1} {shown}",
                    "the model answers NaN or infinity.",
                    "Inspect its weights.",
                )
            )
        losses.append(found)
        tokens.append(counts)
        expected += [example.label for example in chunk]
        if writes:
            written += _written(classifier, encoder, chunk, batch_size, max_new_tokens, device)
        if on_event is not None:
            on_event(start + len(chunk), len(examples))
    return Writing(
        np.concatenate(losses),
        np.concatenate(tokens),
        tuple(expected),
        tuple(written) if writes else None,
    )


def _losses(
    classifier: Classifier, rows: Sequence[Mapping[str, Any]], batch_size: int, device: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Negative log-likelihood of each row's labels, and how many there are."""
    model: Any = classifier.model.to(device)
    losses, tokens = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    for chosen in batches(rows, batch_size):
        batch = classifier.encoder.collate([rows[index] for index in chosen])
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        labels = inputs["labels"]
        if not model.config.is_encoder_decoder:  # its logits are of the next token
            del inputs["labels"]
            labels = labels[:, 1:]
        with torch.inference_mode():
            logits = model(**inputs).logits[:, : labels.shape[1]].float()
            loss = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
            )
        losses[chosen] = loss.double().sum(dim=1).cpu().numpy()
        tokens[chosen] = (labels != IGNORED).sum(dim=1).cpu().numpy()
    return losses, tokens


def _written(
    classifier: Classifier,
    encoder: GenerativeEncoder,
    chunk: Sequence[Example],
    batch_size: int,
    max_new_tokens: int,
    device: str,
) -> list[str]:
    model: Any = classifier.model.to(device)
    after = not model.config.is_encoder_decoder
    if after and (positions := getattr(model.config, "max_position_embeddings", None)):
        max_new_tokens = min(max_new_tokens, positions // 2)  # the prompt needs some too
    counted = encoder.truncated
    prompts = encoder.encode_prompts(chunk, room=max_new_tokens)
    encoder.truncated = counted  # with their texts they were counted already
    texts = [""] * len(prompts)
    for chosen in batches(prompts, batch_size):
        batch = encoder.collate([prompts[index] for index in chosen], left=after)
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.inference_mode(), quiet_transformers():
            ids = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=encoder.tokenizer.pad_token_id,
            )
        if after:
            ids = ids[:, inputs["input_ids"].shape[1] :]
        found = encoder.tokenizer.batch_decode(ids, skip_special_tokens=True)
        for index, text in zip(chosen, found, strict=True):
            texts[index] = text.strip()
    return texts


def _encoder(classifier: Classifier) -> GenerativeEncoder:
    assert isinstance(classifier.encoder, GenerativeEncoder)
    return classifier.encoder
