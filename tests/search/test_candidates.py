"""Models in memory answer as the merged checkpoint that `evaluate` loads, whatever their kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import alliage
from alliage.data import Example, Task
from alliage.errors import AlliageError
from alliage.evaluation import Misfit
from alliage.merging import parse_recipe, plan, run
from alliage.search.candidates import Candidates
from alliage.search.questions import questions_of
from tests.conftest import WORDS, bert_config, save_tokenizer, shift

TAGS = ("O", "B-PER", "I-PER")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Bases and two tuned models of each kind: images, tags, a language model, a regression."""
    from transformers import (
        BertForSequenceClassification,
        BertForTokenClassification,
        BertModel,
        GPT2Config,
        GPT2LMHeadModel,
        ViTConfig,
        ViTForImageClassification,
        ViTModel,
    )

    home = tmp_path_factory.mktemp("kinds")
    vit = ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    gpt = GPT2Config(
        vocab_size=5 + len(WORDS), n_positions=32, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=2, eos_token_id=3, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    bases = {
        "images": ViTModel(vit, add_pooling_layer=False),
        "tags": BertModel(bert_config()),
        "texts": GPT2LMHeadModel(gpt),
        "numbers": BertModel(bert_config()),
    }
    for kind, base in bases.items():
        base.save_pretrained(home / kind / "base")
        if kind != "images":
            save_tokenizer(home / kind / "base")
        for seed, name in enumerate(("first", "second")):
            torch.manual_seed(seed)
            if kind == "images":
                model = ViTForImageClassification(ViTConfig(**vit.to_dict() | {"num_labels": 2}))
                model.vit.load_state_dict(base.state_dict())
            elif kind == "tags":
                labels = dict(enumerate(TAGS))
                model = BertForTokenClassification(bert_config(id2label=labels))
                model.bert.load_state_dict(base.state_dict(), strict=False)
            elif kind == "numbers":
                model = BertForSequenceClassification(bert_config(num_labels=1))
                model.bert.load_state_dict(base.state_dict())
            else:
                model = GPT2LMHeadModel(gpt)
                model.load_state_dict(base.state_dict())
            shift(model, seed, 0.1)
            model.save_pretrained(home / kind / name)
            if kind != "images":
                save_tokenizer(home / kind / name)
    return home


def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 8, 8)).astype(np.uint8)


TASKS = {
    "images": ("image-classification", ("no", "yes"), [(p, i % 2) for i, p in enumerate(pixels())]),
    "tags": (
        "token-classification",
        TAGS,
        [
            (("the", "good", "team"), (0, 1, 2)),
            (("rain",), (1,)),
            (("a", "very", "long"), (0, 0, 1)),
        ],
    ),
    "texts": (
        "multiple-choice",
        (),
        [(("the film", ("good", "bad", "rain")), 0), (("a", ("sun", "goal team")), 1)],
    ),
    "numbers": ("regression", (), [(("good",), 1.5), (("the sun",), 0.2), (("bad film",), -1.0)]),
}


def question(kind):
    given, labels, examples = TASKS[kind]
    return Task(kind, given, labels, {"validation": tuple(Example(*each) for each in examples)})


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_answers_as_the_written_merge_does(home, tmp_path, kind):
    def recipe(scale):
        models = [str(home / kind / name) for name in ("first", "second")]
        content = {"method": "ties", "base": str(home / kind / "base"), "models": models}
        return parse_recipe(content | {"parameters": {"density": 0.5, "scale": scale}})

    task = question(kind)
    heads = None if kind == "texts" else {kind: "second"}
    asked = questions_of([task], heads=heads)
    with Candidates(recipe(1.0), asked, tmp_path) as candidates:
        for number, scale in enumerate((0.4, 3.0)):
            score = candidates.score(recipe(scale))
            made = tmp_path / f"{scale}"
            run(plan(recipe(scale)), made)
            head = heads and heads[kind]
            found = alliage.evaluate(made, task, head=head)[kind]
            assert score.by_task == (found.metrics[asked[0].metric],), number
            assert score.value == score.by_task[0]
    assert not (tmp_path / ".merged").exists()


def test_all_tasks_share_one_body(recipe, asked, tmp_path):
    with Candidates(recipe(), asked, tmp_path) as candidates:
        first, second = candidates.models
        names = set(first.parameters) & set(second.parameters)
        assert "encoder.layer.0.attention.self.query.weight" in names
        bodies = [dict(each.classifier.model.named_parameters()) for each in (first, second)]
        for name in names & {tensor.name for tensor in plan(recipe()).merged}:
            one, other = (
                body[each.parameters[name]]
                for body, each in zip(bodies, (first, second), strict=True)
            )
            assert one.data_ptr() == other.data_ptr() == candidates.targets[name].data_ptr()
        assert bodies[0]["classifier.weight"].shape != bodies[1]["classifier.weight"].shape
        assert candidates.notes == [
            "mood is answered by the head of sentiment.",
            "themes is answered by the head of topics.",
        ]


def test_the_score_is_the_mean_over_the_tasks(recipe, asked, tmp_path):
    with Candidates(recipe(), asked, tmp_path) as candidates:
        score = candidates.score(recipe("task_arithmetic"))
    assert score.value == sum(score.by_task) / 2
    assert score.by_task[0] != score.by_task[1]


def test_a_task_that_no_head_fits_or_several_do_is_refused(recipe, family, tasks, tmp_path):
    other = Task("other", "sequence-classification", ("a", "b", "c", "d"), tasks[0].splits)
    with pytest.raises(Misfit, match="none of its heads records the task 'other'"):
        Candidates(recipe(), questions_of([other]), tmp_path)
    twice = recipe(models=("sentiment", "sentiment"))
    with pytest.raises(Misfit, match="--head"):
        Candidates(twice, questions_of(tasks[:1]), tmp_path)
    chosen = questions_of(tasks[:1], heads={"mood": "sentiment-2"})
    with Candidates(twice, chosen, tmp_path) as candidates:
        assert candidates.notes == []


def test_what_a_killed_search_left_is_removed(recipe, asked, tmp_path):
    (tmp_path / ".merged").mkdir()
    (tmp_path / ".merged" / "junk").write_text("")
    with Candidates(recipe(), asked, tmp_path):
        assert not (tmp_path / ".merged").exists()


def test_a_model_that_holds_weights_otherwise_is_refused(recipe, asked, tmp_path, monkeypatch):
    from alliage.search import candidates

    load = candidates.load_classifier

    def transposed(*given, **named):
        found = load(*given, **named)
        weight = found.model.bert.encoder.layer[0].attention.self.query.weight
        weight.data = weight.data.T.contiguous()
        return found

    def with_more(*given, **named):
        found = load(*given, **named)
        found.model.register_parameter("more", torch.nn.Parameter(torch.ones(2)))
        return found

    def fused(model, checkpoint):
        names = dict(sources(model, checkpoint))
        key = next(name for name in names if name.endswith("layer.0.attention.self.key.weight"))
        return names | {key: names[key].replace("key", "query")}

    sources = candidates.sources
    monkeypatch.setattr(candidates, "load_classifier", transposed)
    with pytest.raises(AlliageError, match=r"self\.query\.weight: has other values"):
        Candidates(recipe(), asked, tmp_path)
    monkeypatch.setattr(candidates, "load_classifier", with_more)
    with pytest.raises(AlliageError, match=r"more: is no tensor of the checkpoint"):
        Candidates(recipe(), asked, tmp_path)
    monkeypatch.setattr(candidates, "load_classifier", load)
    monkeypatch.setattr(candidates, "sources", fused)
    with pytest.raises(AlliageError, match=r"self\.key\.weight: has other values than"):
        Candidates(recipe(), asked, tmp_path)
