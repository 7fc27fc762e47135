from __future__ import annotations

import numpy as np
import pytest

from alliage.data.images import read_archive
from alliage.errors import AlliageError

IMAGES = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_labels_become_names(tmp_path):
    path = save(
        tmp_path / "train.npz", images=IMAGES, labels=np.uint8([1, 0]), class_names=["cat", "dog"]
    )
    archive = read_archive(path)
    assert archive.classes == ("cat", "dog")
    assert archive.labels == ["dog", "cat"]
    np.testing.assert_array_equal(archive.images, IMAGES)


def test_missing_arrays_get_the_nearest_name(tmp_path):
    path = save(tmp_path / "train.npz", image=IMAGES, labels=[0, 1], class_names=["a", "b"])
    with pytest.raises(AlliageError, match=r"no array 'images'. Did you mean 'image'"):
        read_archive(path)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"images": IMAGES.astype(np.float32)}, "images"),
        ({"images": IMAGES[..., None]}, "images"),
        ({"labels": [0]}, "labels"),
        ({"labels": [0, 2]}, "labels"),
        ({"labels": [0.0, 1.0]}, "labels"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, changes, place):
    arrays = {"images": IMAGES, "labels": [0, 1], "class_names": ["a", "b"]} | changes
    path = save(tmp_path / "train.npz", **arrays)
    with pytest.raises(AlliageError, match=f"npz: {place}: expected"):
        read_archive(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    path = save(
        tmp_path / "train.npz", images=np.array([{}, {}], dtype=object), labels=[0, 1],
        class_names=["a", "b"],
    )  # fmt: skip
    with pytest.raises(AlliageError, match="no readable numpy archive"):
        read_archive(path)


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "train.npz"
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(AlliageError, match="no readable numpy archive"):
        read_archive(path)
