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
