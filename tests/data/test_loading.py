from __future__ import annotations

import numpy as np
import pytest

from alliage.data import Example, load_task
from alliage.errors import AlliageError, UsageError


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_folder_of_tables(tmp_path):
    folder = write(
        tmp_path / "mood",
        train__tsv="text\tlabel\ngood\tpositive\nbad\tnegative\n",
        validation__tsv="text\tlabel\nfine\tpositive\n",
        notes__tsv="ignored",
    )
    task = load_task(folder)
    assert (task.name, task.kind) == ("mood", "sequence-classification")
    assert task.labels == ("negative", "positive")
    assert task.splits == {
        "train": (Example(("good",), 1), Example(("bad",), 0)),
        "validation": (Example(("fine",), 1),),
    }
    assert task.files == (folder / "train.tsv", folder / "validation.tsv")


def test_numbers_are_ordered_by_value(tmp_path):
    rows = "".join(f"a\t{label}\n" for label in (10, 9, 2, 10))
    folder = write(tmp_path / "t", train__tsv="text\tlabel\n" + rows * 5)
    assert load_task(folder).labels == ("2", "9", "10")


def test_tags_are_ordered_by_entity(tmp_path):
    folder = write(
        tmp_path / "t",
        train__conll="a\tB-PER\nb\tI-PER\nc\tB-LOC\nd\tO\n",
        validation__conll="a\tB-PER\n",
    )
    task = load_task(folder)
    assert task.labels == ("O", "B-LOC", "B-PER", "I-PER")
    assert task.has_entities
    assert task.splits["train"] == (Example(("a", "b", "c", "d"), (2, 3, 1, 0)),)


def test_parts_of_speech_are_always_the_seventeen(tmp_path):
    line = "1\tvin\t_\tNOUN" + "\t_" * 6
    task = load_task(write(tmp_path / "t", train__conllu=line, validation__conllu=line))
    assert len(task.labels) == 17
    assert not task.has_entities


def test_labels_unknown_to_train_are_named_with_line_and_nearest(tmp_path):
    folder = write(
        tmp_path / "t",
        train__tsv="text\tlabel\na\tpositive\nb\tnegative\n",
        validation__tsv="text\tlabel\na\tpositive\nb\tpostive\nc\tpostive\n",
        test__tsv="text\tlabel\na\tneutral\n",
    )
    with pytest.raises(AlliageError) as caught:
        load_task(folder)
    first, second = map(str, caught.value.problems)
    assert first.startswith(
        f"{folder}/validation.tsv, line 3: label 'postive' (2 times) is not among the labels of "
        "the task. Did you mean 'positive'"
    )
    assert second.startswith(f"{folder}/test.tsv, line 2: label 'neutral' (1 times)")


def test_problems_of_all_splits_are_reported_together(tmp_path):
    folder = write(tmp_path / "t", train__tsv="text\tlabel\na\n", validation__tsv="text\tlabel\n")
    with pytest.raises(AlliageError) as caught:
        load_task(folder)
    assert [problem.where for problem in caught.value.problems] == [
        f"{folder}/train.tsv, line 2",
        f"{folder}/validation.tsv",
    ]


def test_one_class_only_is_refused(tmp_path):
    folder = write(tmp_path / "t", train__tsv="text\tlabel\na\tx\nb\tx\n")
    with pytest.raises(AlliageError, match="one label only"):
        load_task(folder)


def test_two_files_for_one_split_are_refused(tmp_path):
    folder = write(tmp_path / "t", train__tsv="text\tlabel\na\tx\n", train__conll="a\tO\n")
    with pytest.raises(UsageError, match=r"several files for one split: train.conll, train.tsv"):
        load_task(folder)


def test_a_folder_without_splits_lists_what_it_holds(tmp_path):
    with pytest.raises(UsageError, match=r"no train, validation or test file .* found dev.tsv"):
        load_task(write(tmp_path / "t", dev__tsv=""))


def test_without_a_validation_file_a_tenth_of_train_is_held_out(tmp_path):
    rows = "".join(f"text {number}\t{number % 2}\n" for number in range(50))
    folder = write(tmp_path / "t", train__tsv="text\tlabel\n" + rows)
    task = load_task(folder)
    train, validation = task.splits["train"], task.splits["validation"]
    assert (len(train), len(validation)) == (45, 5)
    assert len(set(train) | set(validation)) == 50
    assert load_task(folder).splits == task.splits


def test_a_smaller_part_lies_in_a_larger_one_in_the_order_of_the_file(tmp_path):
    rows = "".join(f"text {number}\t{number % 2}\n" for number in range(50))
    task = load_task(write(tmp_path / "t", train__tsv="text\tlabel\n" + rows))
    few, more = task.examples("train", limit=5), task.examples("train", limit=20)
    assert set(few) < set(more) < set(task.splits["train"])
    assert more == tuple(e for e in task.splits["train"] if e in more)
    assert task.examples("train", limit=5, seed=1) != few
    with pytest.raises(UsageError, match="Did you mean 'train'"):
        task.examples("trian")


def test_a_yaml_file_says_it_all(tmp_path):
    write(
        tmp_path,
        a__jsonl='{"said": "go", "intent": "1"}\n{"said": "stop", "intent": "0"}\n',
        b__jsonl='{"said": "wait", "intent": "0"}\n',
        c__jsonl='{"said": "run", "intent": "1"}\n',
        intents__yml="""
            kind: sequence-classification
            files: {train: [a.jsonl, b.jsonl], validation: c.jsonl}
            columns: {text: said, label: intent}
            labels: {0: halt, 1: move}
        """,
    )
    task = load_task(tmp_path / "intents.yml")
    assert (task.name, task.labels) == ("intents", ("halt", "move"))
    assert task.splits["train"] == (
        Example(("go",), 1), Example(("stop",), 0), Example(("wait",), 0),
    )  # fmt: skip
    assert task.splits["validation"] == (Example(("run",), 1),)


def test_every_mistake_in_a_yaml_file_is_named(tmp_path):
    write(
        tmp_path,
        a__tsv="text\tlabel\na\tx\n",
        c__npz="",
        t__yml="""
            kind: sequence-classification
            files: {trian: a.tsv, train: b.tsv, test: c.npz}
            separator: ","
        """,
    )
    with pytest.raises(UsageError) as caught:
        load_task(tmp_path / "t.yml")
    messages = "\n".join(map(str, caught.value.problems))
    assert "files.trian: is no split. Did you mean 'train'?" in messages
    assert "b.tsv: does not exist. Did you mean 'a.tsv'?" in messages
    assert "c.npz is for image-classification, not for sequence-classification" in messages
    assert "a.tsv is not separated by ','" in messages


def test_image_archives_must_agree_on_their_classes(tmp_path):
    for split, names in {"train": ["a", "b"], "validation": ["b", "a"]}.items():
        np.savez(
            tmp_path / f"{split}.npz", images=np.zeros((2, 4, 4), np.uint8), labels=[0, 1],
            class_names=names,
        )  # fmt: skip
    with pytest.raises(AlliageError, match=r"expected the labels \('a', 'b'\)"):
        load_task(tmp_path)


def test_a_task_that_is_not_there_gets_the_nearest_name(tmp_path):
    write(tmp_path / "sentiment")
    with pytest.raises(UsageError, match="Did you mean 'sentiment'"):
        load_task(tmp_path / "sentimnet")


GLUE = {
    "train__tsv": "text\tlabel\n" + "".join(f"text {n}\t{n % 2}\n" for n in range(50)),
    "validation__tsv": "text\tlabel\nofficial\t1\n",
}


@pytest.mark.parametrize(
    "hidden", ["text\na\nb\n", "text\tlabel\na\t\nb\t\n", "text\tlabel\na\t-1\nb\t-1\n"]
)
def test_a_test_split_without_labels_is_kept_and_said(tmp_path, hidden):
    task = load_task(write(tmp_path / "t", **GLUE, test__tsv=hidden))
    assert task.splits["test"] == (Example(("a",), None), Example(("b",), None))
    assert [str(note) for note in task.notes] == [
        f"{tmp_path}/t/test.tsv: hides its labels: it cannot be scored."
    ]


def test_a_misspelt_label_column_does_not_hide_labels(tmp_path):
    folder = write(tmp_path / "t", **GLUE, test__tsv="text\tlable\na\t1\n")
    with pytest.raises(AlliageError, match=r"test.tsv: no column 'label'. Did you mean 'lable'"):
        load_task(folder)


def test_train_may_not_hide_its_labels(tmp_path):
    folder = write(tmp_path / "t", train__tsv="text\tlabel\na\t\nb\t\n")
    with pytest.raises(AlliageError, match=r"train.tsv, line 2: column 'label': 2 without a label"):
        load_task(folder)


def test_a_label_missing_among_others_is_named(tmp_path):
    folder = write(tmp_path / "t", **GLUE, test__tsv="text\tlabel\na\t1\nb\t\nc\t\n")
    with pytest.raises(AlliageError, match=r"test.tsv, line 3: column 'label': 2 without a label"):
        load_task(folder)


def test_hold_out_makes_the_official_validation_the_test_split(tmp_path):
    folder = write(tmp_path / "t", **GLUE, test__tsv="text\na\n")
    task = load_task(folder, validation="hold-out")
    assert {split: len(examples) for split, examples in task.splits.items()} == {
        "train": 45, "validation": 5, "test": 1,
    }  # fmt: skip
    assert task.splits["test"] == (Example(("official",), 1),)
    alone = load_task(write(tmp_path / "alone", train__tsv=GLUE["train__tsv"]))
    assert alone.splits["validation"] == task.splits["validation"]
    assert len(set(task.splits["train"]) | set(task.splits["validation"])) == 50
    write(
        tmp_path,
        t__yml="kind: sequence-classification\nvalidation: hold-out\n"
        "files: {train: t/train.tsv, validation: t/validation.tsv}\n",
    )
    assert load_task(tmp_path / "t.yml").splits == task.splits
    official = load_task(tmp_path / "t.yml", validation="official").splits
    assert official["validation"] == (Example(("official",), 1),)


def test_hold_out_needs_no_validation_split_beside_a_labelled_test_split(tmp_path):
    folder = write(tmp_path / "t", **GLUE, test__tsv="text\tlabel\na\t1\n")
    with pytest.raises(UsageError, match="has a test split with labels"):
        load_task(folder, validation="hold-out")


def test_one_class_in_train_is_nothing_to_learn_from(tmp_path):
    folder = write(
        tmp_path,
        train__tsv="text\tlabel\na\tx\nb\tx\n",
        validation__tsv="text\tlabel\na\ty\n",
        t__yml="kind: sequence-classification\nlabels: [x, y]\n"
        "files: {train: train.tsv, validation: validation.tsv}\n",
    )
    with pytest.raises(AlliageError, match=r"train.tsv: one label only \(x\)"):
        load_task(folder / "t.yml")


def test_numbers_choices_and_texts_through_yaml(tmp_path):
    write(
        tmp_path,
        a__tsv="one\ttwo\tscore\na\tb\t3.8\nc\td\t-1\n",
        b__tsv="one\ttwo\tscore\na\tb\tmuch\nc\td\tnan\n",
        numbers__yml="kind: regression\nfiles: {train: a.tsv, validation: a.tsv}\n"
        "columns: {text: one, pair: two, label: score}\n",
        choices__yml="kind: multiple-choice\nfiles: {train: a.tsv, validation: a.tsv}\n"
        "columns: {template: '{one} or {two}?', choices: {3.8: 'yes', -1: 'no'}, answer: score}\n",
        texts__yml="kind: text-generation\nfiles: {train: a.tsv, validation: a.tsv}\n"
        "columns: {target: two}\n",
    )
    numbers = load_task(tmp_path / "numbers.yml")
    assert numbers.splits["train"] == (Example(("a", "b"), 3.8), Example(("c", "d"), -1.0))
    choices = load_task(tmp_path / "choices.yml")
    assert choices.splits["train"] == (
        Example(("a or b?", ("yes", "no")), 0),
        Example(("c or d?", ("yes", "no")), 1),
    )
    assert load_task(tmp_path / "texts.yml").splits["train"] == (
        Example(("",), "b"), Example(("",), "d"),
    )  # fmt: skip
    (tmp_path / "a.tsv").write_text((tmp_path / "b.tsv").read_text())
    with pytest.raises(AlliageError, match=r"line 2: column 'score': expected a number, .*much"):
        load_task(tmp_path / "numbers.yml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: sequence\nfiles: {train: a.tsv}", r"sequence: is no kind of task. Did you mean"),
        ("kind: regression\nfiles: {train: a.tsv}\nlabels: [a]", r"unknown key labels"),
        ("kind: regression\nfiles: {train: a.tsv}\ncolumns: {txt: a}", r"unknown key columns.txt"),
        ("kind: regression\nfiles: {train: a.tsv}\nencoding: utf-99", r"no encoding of that name"),
        ("kind: regression\nfiles: {train: a.tsv}\nhub: a/b", r"give either files or hub"),
        ("kind: regression", r"give either files or hub"),
        ("files: {train: a.tsv}", r"kind: Field required"),
        ("kind: sequence-classification\nfiles: {train: a.tsv}\nlabels: [no, yes]", r"in quotes"),
        ("kind: regression\nfiles: {train: a.txt}", r"a.txt is none of .tsv"),
        ("kind: [a]\nfiles: {train: a.tsv}", r"kind: Input should be"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, content, message):
    write(tmp_path, a__tsv="text\tlabel\na\t1\n", a__txt="", t__yml=content)
    with pytest.raises(UsageError, match=message):
        load_task(tmp_path / "t.yml")


def test_another_encoding_is_read_when_told(tmp_path):
    (tmp_path / "a.csv").write_bytes("text;label\ncafé;1\nthé;0\n".encode("cp1252"))
    write(
        tmp_path, t__yml="kind: sequence-classification\nfiles: {validation: a.csv}\n"
        "encoding: cp1252\nseparator: ';'\n",
    )  # fmt: skip
    assert load_task(tmp_path / "t.yml").splits["validation"][0].inputs == ("café",)


def test_of_one_example_none_is_held_out(tmp_path):
    folder = write(tmp_path / "t", train__tsv="text\tlabel\na\t1.5\n")
    write(tmp_path, t__yml="kind: regression\nfiles: {train: t/train.tsv}\n")
    with pytest.raises(AlliageError, match="t: train: one example: none can be held out") as caught:
        load_task(tmp_path / "t.yml")
    assert "Add a validation split" in str(caught.value)
    (folder / "train.tsv").write_text("text\tlabel\na\t1.5\nb\t2.5\n")
    splits = load_task(tmp_path / "t.yml").splits
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 1, "validation": 1,
    }  # fmt: skip


def test_minus_one_hides_no_label_where_train_has_it(tmp_path):
    told = "text\tlabel\n" + "a\t1\nb\t-1\n" * 5
    rows = "text\tlabel\nc\t-1\nd\t-1\n"
    folder = write(tmp_path / "t", train__tsv=told, validation__tsv=told, test__tsv=rows)
    task = load_task(folder)
    assert task.labels == ("-1", "1")
    assert task.splits["test"] == (Example(("c",), 0), Example(("d",), 0))
    assert not task.notes
    write(
        tmp_path, numbers__yml="kind: regression\nfiles: {train: t/train.tsv, test: t/test.tsv}\n",
        stated__yml="kind: sequence-classification\nfiles: {test: t/test.tsv}\nlabels: [-1, 1]\n",
    )  # fmt: skip
    numbers = load_task(tmp_path / "numbers.yml").splits["test"]
    assert numbers == (Example(("c",), -1.0), Example(("d",), -1.0))
    assert load_task(tmp_path / "stated.yml").splits["test"] == task.splits["test"]


@pytest.mark.parametrize("test", ["-1", "-1.0"])
def test_minus_one_hides_numbers_that_train_does_not_have(tmp_path, test):
    train = "text\tlabel\n" + "a\t0.25\nb\t3.00\n" * 2
    folder = write(
        tmp_path / "t", train__tsv=train, validation__tsv=train, test__tsv=f"text\tlabel\nc\t{test}"
    )
    assert load_task(folder).splits["test"] == (Example(("c",), None),)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["0.00", "0.14", "-1.50", ".5", "5.00"], "regression"),
        (["0.0", "1.0", "2.0"], "sequence-classification"),  # whole: as tables with gaps store them
        (["0.5", "1", "2.5"], "sequence-classification"),
        (["1.2", "1.3", "1.3.1"], "sequence-classification"),
        (["3", "4"], "sequence-classification"),
    ],
)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_labels_that_are_all_decimal_numbers_ask_for_regression(tmp_path, labels, kind, separator):
    lines = "".join(f"a{separator}{label}\n" for label in labels)
    name = {",": "csv", "\t": "tsv"}[separator]
    files = {f"{split}__{name}": f"text{separator}label\n{lines}" for split in ("train", "test")}
    validation = {f"validation__{name}": f"text{separator}label\n{lines}"}
    task = load_task(write(tmp_path / "t", **files, **validation))
    assert task.kind == kind
    if kind == "regression":
        assert [example.label for example in task.splits["train"]] == list(map(float, labels))


def test_it_is_said_where_labels_are_taken_for_numbers(tmp_path):
    write(tmp_path / "stars", train__csv="text,label\n" + "x,0.5\ny,1.0\n" * 9)
    assert any("read as regression" in str(note) for note in load_task(tmp_path / "stars").notes)
