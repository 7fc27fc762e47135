from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from alliage.report.figures.labels import place
from alliage.report.figures.svg import FONT_SIZE, text_width

FRAME = (0.0, 0.0, 400.0, 300.0)


@pytest.mark.parametrize("seed", range(4))
def test_labels_cover_neither_each_other_nor_points_nor_the_frame(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = [tuple(row) for row in (random.random((30, 2)) * [400, 300]).tolist()]
    points[1] = points[0]
    texts = [f"model-{index}" for index in range(30)]
    boxes = []
    for label, text in zip(place(points, texts, FRAME), texts, strict=True):
        if label:
            bottom = label.y + 0.25 * FONT_SIZE
            width = text_width(text)
            left = label.x - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
            boxes.append((left, bottom - 1.15 * FONT_SIZE, left + width, bottom))
    assert len(boxes) > 20
    for left, top, right, bottom in boxes:
        assert left >= 0
        assert top >= 0
        assert right <= 400
        assert bottom <= 300
        assert not any(left < x < right and top < y < bottom for x, y in points)
    for one, other in combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart


def test_coinciding_points_get_labels_with_leaders() -> None:
    labels = place([(200.0, 150.0)] * 8, [f"a-long-name-{index}" for index in range(8)], FRAME)
    assert all(labels)
    assert any(label and label.leader for label in labels)


def test_labels_keep_clear_of_points_that_have_none() -> None:
    (label,) = place([(200.0, 150.0), (212.0, 150.0)], ["name"], FRAME)
    assert label
    assert (label.anchor, label.x) == ("end", 193)


def test_a_label_without_room_is_left_out() -> None:
    assert place([(5.0, 5.0)], ["too long for so small a frame"], (0, 0, 40, 40)) == [None]
