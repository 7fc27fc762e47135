"""Which head answers, in which order, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alliage
from alliage.data import Example, Task
from alliage.errors import AlliageError
from alliage.evaluation import Misfit, load_classifier, predict

TEXTS = ("the film was good", "bad book", "great awful rain", "the sun")
EXAMPLES = tuple(Example((text,), number % 2) for number, text in enumerate(TEXTS))


def task(*labels, name="mood"):
    return Task(name, "sequence-classification", labels, {"validation": EXAMPLES})


MOOD = task("negative", "positive")


def answers(ref, wanted=MOOD, head=None):
    with alliage.open(ref) as checkpoint:
        return predict(load_classifier(checkpoint, wanted, head=head), EXAMPLES).probabilities


@pytest.fixture(scope="module")
def expected(family):
    """Transformers' own answers of the full sentiment model."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(family / "sentiment").eval()
    tokenizer = AutoTokenizer.from_pretrained(family / "sentiment")
    with torch.inference_mode():
        return np.stack(
            [
                model(**tokenizer(text, return_tensors="pt")).logits[0].double().softmax(0)
                for text in TEXTS
            ]
        )


@pytest.fixture(scope="module")
def merged(family, tmp_path_factory):
    """The merge of one model alone is that model, with its head beside it."""
    out = tmp_path_factory.mktemp("merged") / "one"
    alliage.merge("average", models=[family / "sentiment"], base=family / "base", out=out)
    return out


def test_a_full_model_answers_as_in_transformers(family, expected):
    np.testing.assert_allclose(answers(family / "sentiment"), expected, atol=1e-6)


def test_labels_in_another_order_are_matched_by_name(family, expected):
    turned = answers(family / "sentiment", task("positive", "negative"))
    np.testing.assert_allclose(turned, expected[:, ::-1], atol=1e-6)


def test_a_merged_body_answers_with_its_parents_head(merged, expected):
    np.testing.assert_allclose(answers(merged, head="sentiment"), expected, atol=1e-5)


def test_the_head_that_records_the_task_is_found(merged, expected, tmp_path):
    shutil.copytree(merged, tmp_path / "m")
    path = tmp_path / "m" / "heads" / "sentiment" / "head.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": "mood"}))
    np.testing.assert_allclose(answers(tmp_path / "m"), expected, atol=1e-5)


def test_without_such_a_head_all_are_listed(merged):
    with pytest.raises(Misfit, match=r"none of its heads .* 'mood': sentiment \(None\)"):
        answers(merged)
    with pytest.raises(Misfit, match=r"no such head. Did you mean 'sentiment'\?"):
        answers(merged, head="sentimnt")


def test_a_pruned_merge_keeps_its_heads(merged, family, tmp_path):
    alliage.prune(merged, keep_layers=[0], out=tmp_path / "merged-0")
    alliage.prune(family / "sentiment", keep_layers=[0], out=tmp_path / "sentiment-0")
    np.testing.assert_allclose(
        answers(tmp_path / "merged-0", head="sentiment"),
        answers(tmp_path / "sentiment-0"),
        atol=1e-5,
    )


def test_an_adapter_without_label_names_needs_as_many(family):
    assert answers(family / "sentiment-lora").shape == (4, 2)
    with pytest.raises(Misfit, match="the model has 2 outputs, the task 3 labels"):
        answers(family / "sentiment-lora", task("a", "b", "c"))


def test_averaged_factors_answer_with_a_head_whatever_their_type_of_task(family, tmp_path):
    adapter = tmp_path / "typed"
    shutil.copytree(family / "sentiment-lora", adapter)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    content = json.dumps(settings | {"task_type": "SEQ_CLS"})
    (adapter / "adapter_config.json").write_text(content)
    out = tmp_path / "one"
    alliage.merge("factor_average", models=[adapter], base=family / "base", out=out)
    np.testing.assert_allclose(answers(out, head="typed"), answers(adapter), atol=1e-6)


def test_other_labels_are_refused(family):
    with pytest.raises(Misfit, match="decides between negative, positive, the task between"):
        answers(family / "sentiment", task("negative", "neutral"))


def test_a_body_cannot_answer(family):
    with pytest.raises(Misfit, match="has no head"):
        answers(family / "base")


def test_lost_weights_are_named(family, tmp_path):
    shutil.copytree(family / "sentiment", tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    lost = "bert.encoder.layer.1.output.dense.weight"
    del tensors[lost]
    save_file(tensors, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(AlliageError, match=f"{lost}: expected by BertForSequenceClassification"):
        answers(tmp_path / "m")


def test_a_head_for_another_body_is_refused(merged, tmp_path):
    shutil.copytree(merged, tmp_path / "m")
    head = {"classifier.weight": torch.zeros(2, 7), "classifier.bias": torch.zeros(2)}
    save_file(head, tmp_path / "m" / "heads" / "sentiment" / "head.safetensors")
    with pytest.raises(AlliageError, match="does not load for sequence-classification"):
        answers(tmp_path / "m", head="sentiment")


def test_weights_alone_have_no_configuration(family):
    with pytest.raises(AlliageError, match=r"no config\.json"):
        answers(family / "sentiment" / "model.safetensors")
