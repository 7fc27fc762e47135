import itertools

import numpy as np

from alliage.geometry.mapping.task_map import TaskMap


def crowded(n):
    """Two clusters that are far apart, so that names must get out of each other's way."""
    points = np.random.default_rng(0).normal(scale=0.02, size=(n, 2))
    points[::2, 0] += 10
    names = tuple(f"a model with a name {index}" for index in range(n))
    return TaskMap(names, points, np.array([0.9, 0.05]), "geodesic", "pca", 0.1, 0.8)


def test_labels_do_not_overlap():
    figure = crowded(12).figure()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(texts) == 12
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    inside = figure.axes[0].bbox
    assert all(box.x0 >= inside.x0 and box.x1 <= inside.x1 for box in boxes)


def test_axes_say_what_they_explain():
    axes = crowded(3).figure().axes[0]
    assert axes.get_xlabel() == "first axis (90% of variance)"
    assert "geodesic" in axes.get_title(loc="left")


def test_coordinates_as_a_table():
    frame = crowded(3).to_pandas()
    assert list(frame.columns) == ["first", "second"]
    assert frame.index.name == "task"
    assert frame.loc["a model with a name 1", "first"] == crowded(3).coordinates[1, 0]
