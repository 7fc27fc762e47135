from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alliage.data import load_task, sources
from alliage.data.task import LazyExamples
from alliage.errors import AlliageError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Every file is too large for memory, and kept here."""
    monkeypatch.setenv("ALLIAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "LARGE", 0)
    return tmp_path / "cache"


def lines(path, *records):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


SETS = {
    "sequence-classification": [
        {"sentence1": f"a{n}", "sentence2": f"b{n}", "label": n % 3} for n in range(2500)
    ],
    "regression": [{"text": f"a{n}", "label": n / 4} for n in range(9)],
    "token-classification": [
        {"tokens": ["New", "York", str(n)], "tags": ["B-LOC", "I-LOC", "O"]} for n in range(9)
    ],
    "multiple-choice": [
        {"prompt": f"{n}?", "choices": ["a", "b", "c"][: 2 + n % 2], "answer": n % 2}
        for n in range(9)
    ],
    "text-generation": [{"source": f"a{n}", "target": f"b{n}"} for n in range(9)],
}


@pytest.mark.parametrize("kind", SETS)
def test_the_examples_are_those_of_memory(tmp_path, cache, kind, monkeypatch):
    for split in ("train", "validation"):
        lines(tmp_path / "t" / f"{split}.jsonl", *SETS[kind])
    stored = load_task(tmp_path / "t")
    assert isinstance(stored.splits["train"], LazyExamples)
    monkeypatch.setattr(sources, "LARGE", 2**25)
    held = load_task(tmp_path / "t")
    assert isinstance(held.splits["train"], tuple)
    assert (stored.kind, stored.labels) == (held.kind, held.labels) == (kind, held.labels)
    assert tuple(stored.splits["train"]) == held.splits["train"]
    some, same = (task.examples("train", limit=5) for task in (stored, held))
    assert tuple(some) == same
    assert tuple(pickle.loads(pickle.dumps(stored.splits["train"]))) == held.splits["train"]
    assert stored.splits["train"][-1] == held.splits["train"][-1]
    assert tuple(stored.splits["train"][3:1:-1]) == held.splits["train"][3:1:-1]
    with pytest.raises(IndexError):
        stored.splits["train"][len(SETS[kind])]


def test_images_of_a_large_table(tmp_path, cache):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "label": str(number % 2)} for number in range(3)]
    lines(tmp_path / "t.jsonl", *rows)
    (tmp_path / "t.yml").write_text("kind: image-classification\nfiles: {validation: t.jsonl}")
    examples = load_task(tmp_path / "t.yml").splits["validation"]
    for example, image in zip(examples, pixels, strict=True):
        np.testing.assert_array_equal(example.inputs, image)


def test_a_file_is_read_once_until_it_changes(tmp_path, cache):
    path = tmp_path / "t" / "train.jsonl"
    lines(path, *SETS["regression"])
    first = load_task(tmp_path / "t")
    (stored,) = (cache / "data").glob("*.arrow")
    before = stored.stat().st_mtime_ns
    assert len(load_task(tmp_path / "t").splits["train"]) == len(first.splits["train"])
    assert stored.stat().st_mtime_ns == before
    lines(path, *SETS["regression"][:4])
    assert sum(map(len, load_task(tmp_path / "t").splits.values())) == 4
    assert len(list((cache / "data").iterdir())) == 2  # the old ones are gone
    assert not stored.exists()


def test_wrong_lines_are_named_and_nothing_is_kept(tmp_path, cache):
    path = tmp_path / "t" / "train.jsonl"
    lines(path, {"text": "a", "label": 1}, {"text": 3, "label": 1}, {"txt": "b", "label": 2})
    with pytest.raises(AlliageError) as caught:
        load_task(tmp_path / "t")
    assert [p.where for p in caught.value.problems] == [f"{path}, line 2", f"{path}, line 3"]
    assert list((cache / "data").iterdir()) == []


def test_labels_that_train_lacks_are_named(tmp_path, cache):
    lines(tmp_path / "t" / "train.jsonl", *SETS["sequence-classification"])
    lines(
        tmp_path / "t" / "validation.jsonl", {"sentence1": "a", "sentence2": "b", "label": 1},
        {"sentence1": "a", "sentence2": "b", "label": 7},
    )  # fmt: skip
    for _ in range(2):  # also where the counts come from the cache
        with pytest.raises(AlliageError, match=r"validation.jsonl, line 2: label '7' \(1 times\)"):
            load_task(tmp_path / "t")


def test_a_cache_that_cannot_be_written_says_so(tmp_path, cache):
    lines(tmp_path / "t" / "train.jsonl", *SETS["regression"])
    cache.write_text("a file where a folder should be")
    with pytest.raises(AlliageError, match=r"cannot be written.*ALLIAGE_CACHE"):
        load_task(tmp_path / "t")


MEASURE = """
import resource, sys
from alliage.data import load_task, sources

def anonymous():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["RssAnon"].split()[0]) // 1024

def highest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

sources.LARGE = int(sys.argv[3])
load_task(sys.argv[1]), __import__("pyarrow.ipc")  # what is imported on the way
before, peak = anonymous(), highest()
train = load_task(sys.argv[2]).splits["train"]
peak = highest() - peak
characters = sum(len(example.inputs[0]) for example in train[::5])
print(peak, anonymous() - before, characters)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("large", "stays_flat"), [(0, True), pytest.param(2**40, False, marks=pytest.mark.slow)]
)
def test_memory_does_not_grow_with_the_file(tmp_path, large, stays_flat):
    generator = random.Random(0)
    for name, count in (("small", 4_000), ("large", 150_000)):
        folder = tmp_path / name
        folder.mkdir()
        for split, size in (("train", count), ("validation", 40)):
            with (folder / f"{split}.csv").open("w") as file:
                file.write("text,label\n")
                for number in range(size):
                    words = f"{generator.getrandbits(1600):0400x}"
                    file.write(f'"{words}, {number % 7}",{number % 2}\n')
    assert (tmp_path / "large" / "train.csv").stat().st_size > 6e7
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "small", tmp_path / "large", str(large)],
        env=os.environ | {"ALLIAGE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    peak, held, characters = map(int, done.stdout.split())
    assert characters == 150_000 // 5 * 403
    assert (peak < 16) == stays_flat  # MiB more than with the small file
    assert (held < 16) == stays_flat


def test_domains_are_kept(tmp_path, cache):
    records = [{"text": "a", "label": n % 2, "genre": f"g{n % 3}"} for n in range(9)]
    lines(tmp_path / "t" / "train.jsonl", *records)
    (tmp_path / "t.yml").write_text(
        "kind: sequence-classification\n"
        "files: {train: t/train.jsonl, validation: t/train.jsonl}\n"
        "columns: {text: text, domain: genre}\n"
    )
    train = load_task(tmp_path / "t.yml").splits["train"]
    assert isinstance(train, LazyExamples)
    assert [one.domain for one in train] == [record["genre"] for record in records]
