from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset
from PIL import Image

from alliage.data import load_task
from alliage.errors import AlliageError


def picture(path, seed, mode="RGB", size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    for seed, split in enumerate(("train", "validation")):
        for number, name in enumerate(("chat", "chien")):
            for copy in range(2):
                picture(tmp_path / split / name / f"{copy}.png", 10 * seed + 2 * number + copy)
    return tmp_path


def test_every_image_is_a_file_of_the_task(folder):
    assert sorted(load_task(folder).files) == sorted(folder.rglob("*.png"))


def test_the_same_images_and_classes_as_datasets_reads(folder):
    task = load_task(folder)
    expected = load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(folder / "cache"))
    assert (task.kind, task.labels) == (
        "image-classification",
        tuple(expected["train"].features["label"].names),
    )
    for split in ("train", "validation"):
        theirs = sorted(
            (row["label"], np.asarray(row["image"]).tobytes()) for row in expected[split]
        )
        ours = [(example.label, example.inputs.tobytes()) for example in task.splits[split]]
        assert sorted(ours) == theirs


def test_images_are_decoded_when_asked_for_and_travel_between_processes(folder):
    train = load_task(folder).splits["train"]
    first = train[0].inputs
    assert (first.dtype, first.shape) == (np.uint8, (4, 5, 3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(train))[0].inputs, first)
    np.testing.assert_array_equal(train[1:][-1].inputs, train[-1].inputs)
    (folder / "train" / "chat" / "0.png").unlink()
    with pytest.raises(AlliageError, match=r"0.png: is no readable image"):
        train[0]


def test_grey_stays_grey_and_turned_ones_are_set_upright(folder):
    grey = picture(folder / "train" / "chat" / "0.png", 1, mode="L")
    examples = load_task(folder).splits["train"]
    np.testing.assert_array_equal(examples[0].inputs, grey)
    photo = Image.new("RGB", (6, 2))
    exif = photo.getexif()
    exif[0x0112] = 6  # turn by 90° to show
    photo.save(folder / "train" / "chat" / "1.jpg", exif=exif)
    assert load_task(folder).splits["train"][1].inputs.shape == (6, 2, 3)


def test_a_split_without_class_folders_hides_its_labels(folder):
    picture(folder / "test" / "a.png", 5)
    task = load_task(folder)
    assert [example.label for example in task.splits["test"]] == [None]
    assert "hides its labels" in str(task.notes[0])


def test_files_that_are_no_images_are_all_named(folder):
    (folder / "train" / "chat" / "0.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(folder / "validation" / "chien" / "1.png")
    with pytest.raises(AlliageError) as caught:
        load_task(folder)
    first, second = map(str, caught.value.problems)
    assert first.startswith(f"{folder}/train, chat/0.png: is no readable image")
    assert second.startswith(f"{folder}/validation, chien/1.png: expected 8 bits a channel")


def test_classes_that_a_split_lacks_are_named(folder):
    (folder / "validation" / "chien").rename(folder / "validation" / "loup")
    with pytest.raises(AlliageError, match=r"expected the labels \('chat', 'chien'\)"):
        load_task(folder)


def test_images_beside_the_folders_of_classes_are_refused(folder):
    picture(folder / "train" / "stray.png", 1)
    with pytest.raises(AlliageError, match=r"1 images beside the folders of classes, as stray.png"):
        load_task(folder)


def test_a_table_names_images_by_their_paths(folder):
    table = "image\tlabel\ntrain/chat/0.png\tmiaou\ntrain/chien/1.png\tvouf\n"
    (folder / "a.tsv").write_text(table)
    (folder / "t.yml").write_text("kind: image-classification\nfiles: {validation: a.tsv}\n")
    (example, _) = load_task(folder / "t.yml").splits["validation"]
    expected = np.asarray(Image.open(folder / "train" / "chat" / "0.png"))
    np.testing.assert_array_equal(example.inputs, expected)
    (folder / "a.tsv").write_text(table + "nowhere.png\tvouf\n")
    with pytest.raises(AlliageError, match=r"line 4: there is no image .*nowhere.png"):
        load_task(folder / "t.yml")


def test_a_parquet_file_holds_the_bytes_of_images(folder):
    paths = sorted(folder.glob("train/*/*.png"))
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    frame = pd.DataFrame({"image": images, "label": [path.parent.name for path in paths]})
    other = folder / "parquet"
    other.mkdir()
    frame.to_parquet(other / "train.parquet")
    frame.to_parquet(other / "validation.parquet")
    task = load_task(other)
    assert task.labels == ("chat", "chien")
    for example, path in zip(task.splits["train"], paths, strict=True):
        np.testing.assert_array_equal(example.inputs, np.asarray(Image.open(path)))
