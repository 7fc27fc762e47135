"""Hub sets, from a repository's folder: `datasets` loads it as it loads a hub's."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture

from alliage.data import Example, load_task, sources
from alliage.data.task import LazyExamples
from alliage.errors import AlliageError, UsageError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that writes splits of the repository org/set, where names are looked up first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def write(features, config="default", **splits):
        home = tmp_path / "org" / "set"
        for split, content in splits.items():
            path = home / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            Dataset.from_dict(content, Features(features)).to_parquet(path)
        lines = ["---", "configs:"]
        for folder in sorted(item for item in home.iterdir() if item.is_dir()):
            lines += [f"- config_name: {folder.name}", "  data_files:"]
            for path in sorted(folder.iterdir()):
                lines += [f"  - split: {path.stem}", f"    path: {folder.name}/{path.name}"]
        (home / "README.md").write_text("\n".join([*lines, "---", ""]))

    return write


def test_pairs_with_hidden_test_labels_as_of_glue(hub):
    features = {
        "sentence1": Value("string"), "sentence2": Value("string"),
        "label": ClassLabel(names=["entailment", "not_entailment"]), "idx": Value("int32"),
    }  # fmt: skip
    hub(
        features,
        train={"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 0], "idx": [0, 1]},
        validation={"sentence1": ["e"], "sentence2": ["f"], "label": [0], "idx": [0]},
        test={"sentence1": ["g"], "sentence2": ["h"], "label": [-1], "idx": [0]},
    )
    task = load_task("hub:org/set")
    assert (task.name, task.kind) == ("org/set", "sequence-classification")
    assert task.labels == ("entailment", "not_entailment")
    assert task.splits == {
        "train": (Example(("a", "c"), 1), Example(("b", "d"), 0)),
        "validation": (Example(("e", "f"), 0),),
        "test": (Example(("g", "h"), None),),
    }
    (note,) = task.notes
    assert str(note) == "hub:org/set: test: hides its labels: it cannot be scored."


def test_tags(hub):
    names = ["O", "B-LOC", "I-LOC"]
    content = {"tokens": [["New", "York"]], "ner_tags": [[1, 2]]}
    hub(
        {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))},
        train=content, validation=content,
    )  # fmt: skip
    task = load_task("hub:org/set")
    assert (task.kind, task.labels) == ("token-classification", tuple(names))
    assert task.splits["train"] == (Example(("New", "York"), (1, 2)),)


def test_images(hub):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    content = {"image": [Picture.fromarray(image) for image in pixels], "label": [1, 0]}
    hub(
        {"image": Image(), "label": ClassLabel(names=["non", "oui"])},
        train=content, validation=content,
    )  # fmt: skip
    task = load_task("hub:org/set")
    assert (task.kind, task.labels) == ("image-classification", ("non", "oui"))
    for example, image, label in zip(task.splits["train"], pixels, (1, 0), strict=True):
        np.testing.assert_array_equal(example.inputs, image)
        assert example.label == label


def test_numbers_choices_and_summaries_are_told_by_their_columns(hub):
    text = Value("string")
    one = {"sentence1": ["a"], "sentence2": ["b"], "label": [3.8]}
    hub({"sentence1": text, "sentence2": text, "label": Value("float32")}, "stsb", train=one)
    two = {"question": ["?"], "choices": [["a", "b"]], "answer": [1]}
    hub(
        {"question": text, "choices": List(text), "answer": Value("int64")},
        "quiz", train=two, validation=two,
    )  # fmt: skip
    three = {"document": ["long"], "summary": ["short"]}
    hub({"document": text, "summary": text}, "xsum", train=three, validation=three)
    hub({"sentence1": text, "sentence2": text, "label": Value("float32")}, "stsb", validation=one)
    stsb, quiz, xsum = (load_task(f"hub:org/set/{name}") for name in ("stsb", "quiz", "xsum"))
    assert (stsb.kind, stsb.labels) == ("regression", ())
    assert stsb.splits["train"][0].label == pytest.approx(3.8)
    assert quiz.kind == "multiple-choice"
    assert quiz.splits["train"] == (Example(("?", ("a", "b")), 1),)
    assert xsum.kind == "text-generation"
    assert xsum.splits["train"] == (Example(("long",), "short"),)


def test_splits_of_other_names_are_chosen_in_yaml(hub, tmp_path):
    features = {"text": Value("string"), "label": ClassLabel(names=["non", "oui"])}
    content = {"text": ["a", "b"], "label": [0, 1]}
    hub(features, train=content, matched=content)
    (tmp_path / "t.yml").write_text(
        "kind: sequence-classification\nhub: org/set\n"
        "splits: {train: train, validation: matched}\nlabels: {non: 'no', oui: 'yes'}\n"
    )
    task = load_task(tmp_path / "t.yml")
    assert (task.name, task.labels) == ("t", ("no", "yes"))
    assert list(task.splits) == ["train", "validation"]
    (tmp_path / "t.yml").write_text(
        "kind: sequence-classification\nhub: org/set\nsplits: {train: trian}\n"
    )
    with pytest.raises(UsageError, match=r"no split 'trian'. Did you mean 'train'"):
        load_task(tmp_path / "t.yml")


def test_wrong_columns_get_the_nearest(hub, tmp_path):
    hub({"text": Value("string"), "lable": Value("string")}, train={"text": ["a"], "lable": ["x"]})
    with pytest.raises(AlliageError, match=r"org/set: train: no column 'label'. Did you mean 'lab"):
        load_task("hub:org/set")


def test_sets_and_configurations_that_are_not_there(hub):
    hub({"text": Value("string")}, "fr", train={"text": ["a"]})
    with pytest.raises(UsageError, match=r"hub:org/set/en: .*en"):
        load_task("hub:org/set/en")
    with pytest.raises(AlliageError, match="hub:org/other: "):
        load_task("hub:org/other")


def test_large_ones_are_read_from_disk(hub, monkeypatch):
    features = {"text": Value("string"), "label": ClassLabel(names=["non", "oui"])}
    content = {"text": ["a", "b"], "label": [0, 1]}
    hub(features, train=content, validation=content)
    held = load_task("hub:org/set")
    monkeypatch.setattr(sources, "LARGE", 0)
    stored = load_task("hub:org/set")
    assert isinstance(stored.splits["train"], LazyExamples)
    assert tuple(stored.splits["train"]) == held.splits["train"]
    assert stored.labels == held.labels == ("non", "oui")


def test_no_code_of_a_data_set_is_run(hub, tmp_path):
    (tmp_path / "org" / "code").mkdir(parents=True)
    (tmp_path / "org" / "code" / "code.py").write_text("open('here', 'w')")
    with pytest.raises(UsageError, match=r"hub:org/code: .*script"):
        load_task("hub:org/code")
    assert not (tmp_path / "here").exists()
