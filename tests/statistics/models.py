"""Small models of every kind, and tasks in memory that they answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from alliage.data import Example, Task
from tests.conftest import LABELS, WORDS, save_tokenizer

SENTENCES = (
    "the film was good",
    "bad book",
    "great awful rain",
    "the sun",
    "a very very long goal",
)
MOOD = Task(
    "mood",
    "sequence-classification",
    tuple(LABELS["sentiment"]),
    {"train": tuple(Example((text,), number % 2) for number, text in enumerate(SENTENCES))},
)
SUBJECT = Task(
    "subject",
    "sequence-classification",
    tuple(LABELS["topics"]),
    {"train": tuple(Example((text,), number % 3) for number, text in enumerate(SENTENCES[:4]))},
)
STORIES = Task(
    "stories",
    "text-generation",
    (),
    {"train": tuple(Example((text,), f"is {WORDS[9 + i]}") for i, text in enumerate(SENTENCES))},
)
TAGS = Task(
    "tags",
    "token-classification",
    ("NOUN", "VERB", "X"),
    {
        "train": tuple(
            Example(tuple(text.split()), tuple(i % 3 for i in range(len(text.split()))))
            for text in SENTENCES
        )
    },
)
STARS = Task(
    "stars",
    "regression",
    (),
    {"train": tuple(Example((text,), float(i)) for i, text in enumerate(SENTENCES))},
)
SHAPES = Task(
    "shapes",
    "image-classification",
    ("round", "square"),
    {
        "train": tuple(
            Example(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8), i % 2)
            for i in range(4)
        )
    },
)


def save_language_models(home: Path) -> None:
    """A decoder with Conv1D layers and tied embeddings, gpt; an encoder-decoder, t5."""
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    gpt = GPT2Config(
        vocab_size=5 + len(WORDS), n_positions=32, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=2, eos_token_id=3, initializer_range=0.3,
    )  # fmt: skip
    GPT2LMHeadModel(gpt).save_pretrained(home / "gpt")
    t5 = T5Config(
        vocab_size=5 + len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        pad_token_id=0, eos_token_id=3, decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(t5).save_pretrained(home / "t5")
    for name in ("gpt", "t5"):
        from transformers import AutoTokenizer

        save_tokenizer(home / name)
        tokenizer = AutoTokenizer.from_pretrained(home / name)
        tokenizer.eos_token = "[SEP]"
        tokenizer.save_pretrained(home / name)


def save_vision_transformer(home: Path) -> None:
    """A classifier of images, vit."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4, num_channels=1,
        id2label={0: "round", 1: "square"}, label2id={"round": 0, "square": 1},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(home / "vit")


def save_other_heads(home: Path, base: Path) -> None:
    """Of a BERT body: a tagger, tags, and a regression, stars."""
    from transformers import BertForSequenceClassification, BertForTokenClassification

    torch.manual_seed(1)
    labels = dict(enumerate(TAGS.labels))
    BertForTokenClassification.from_pretrained(
        base, id2label=labels, label2id={label: i for i, label in labels.items()}
    ).save_pretrained(home / "tags")
    BertForSequenceClassification.from_pretrained(
        base, num_labels=1, problem_type="regression"
    ).save_pretrained(home / "stars")
    for name in ("tags", "stars"):
        save_tokenizer(home / name)
