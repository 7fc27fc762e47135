from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from alliage.report.distances import (
    LAYERS,
    MODEL,
    MODULES,
    Matrix,
    dendrogram,
    matrices,
    profiles,
    representatives,
)  # fmt: skip

COLUMNS = ["metric", "first", "second", "module", "layer", "kind", "value"]


def frame(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def test_means_over_modules_and_over_kinds_by_hand() -> None:
    found = matrices(
        frame(
            ("l2", "a", "b", "0.q", 0, "query", 1.0), ("l2", "a", "b", "1.q", 1, "query", 3.0),
            ("l2", "a", "b", "0.v", 0, "value", 5.0), ("l2", "b", "c", "0.q", 0, "query", 2.0),
            ("l2", "a", "a", "0.q", 0, "query", 9.0), ("l2", "a", "c", "0.q", 0, "query", np.nan),
        )
    )  # fmt: skip
    assert [matrix.modules for matrix in found] == [MODULES, "query", "value"]
    nan = np.nan
    np.testing.assert_array_equal(found[0].values, [[0, 3, nan], [3, 0, 2], [nan, 2, 0]])
    np.testing.assert_array_equal(found[1].values, [[0, 2, nan], [2, 0, 2], [nan, 2, 0]])
    assert found[2].names == ("a", "b")
    assert not found[0].complete
    assert found[0].pairs() == [(2.0, "b", "c"), (3.0, "a", "b")]


def test_a_pair_written_in_both_orders_counts_once() -> None:
    (matrix,) = matrices(
        frame(("l2", "a", "b", "m", 0, "key", 1.0), ("l2", "b", "a", "m", 0, "key", 1.0))
    )
    np.testing.assert_array_equal(matrix.values, [[0, 1], [1, 0]])


def test_surveys_without_a_common_pair_are_matrices_of_their_own() -> None:
    table = frame(
        ("l2", "a", "b", "m", 0, "key", 1.0), ("l2", "z", "y", "m", 0, "key", 2.0),
        ("l2", "y", "x", "m", 0, "key", 3.0), ("l2", "x", "z", "m", 0, "key", np.nan),
        ("l2", "z", "w", "m", 0, "key", 4.0), ("cosine", "a", "z", "m", 0, "key", 5.0),
    )  # fmt: skip
    one, large, small = matrices(table)
    assert (one.metric, one.names, one.models) == ("cosine", ("a", "z"), "a and z")
    assert (large.names, large.models) == (("w", "x", "y", "z"), "w, x and 2 more")
    assert (small.names, small.complete) == (("a", "b"), True)
    nan = np.nan
    np.testing.assert_array_equal(
        large.values, [[0, nan, nan, 4], [nan, 0, 3, nan], [nan, 3, 0, 2], [4, nan, 2, 0]]
    )


def test_profiles_keep_groups_apart() -> None:
    rows = [
        ("l2", *pair, f"{layer}.q", layer, "query", value + layer)
        for pair, value in ((("a", "b"), 1.0), (("c", "d"), 5.0))
        for layer in (0, 1)
    ]
    first, second = profiles(frame(*rows))
    assert (first.models, second.models) == ("a and b", "c and d")
    np.testing.assert_array_equal(first.mean, [1, 2])
    np.testing.assert_array_equal(second.mean, [5, 6])


def test_modules_count_before_layers_and_layers_before_the_model() -> None:
    model = ("l2", "a", "b", "model", -1, "", 7.0)
    layer = ("l2", "a", "b", "encoder.layer.0", 0, "", 5.0)
    module = ("l2", "a", "b", "encoder.layer.0.query", 0, "query", 3.0)
    for rows, name, value in (
        ([model], MODEL, 7), ([model, layer], LAYERS, 5), ([model, layer, module], MODULES, 3),
    ):  # fmt: skip
        (matrix,) = matrices(frame(*rows))
        assert (matrix.modules, matrix.values[0, 1]) == (name, value)


def test_dendrogram_joins_the_nearest_first_at_their_mean_distance() -> None:
    values = np.array([[0, 1, 4, 6], [1, 0, 4, 6], [4, 4, 0, 2], [6, 6, 2, 0]], float)
    tree = dendrogram(Matrix("l2", "all", MODULES, tuple("abcd"), values))
    np.testing.assert_allclose(tree[:, 2], [1, 2, 5])  # (4 + 6 + 4 + 6) / 4


def test_representatives_are_one_of_each_group() -> None:
    place = np.array([0.0, 0.1, 0.2, 10.0, 10.1, 30.0])
    matrix = Matrix("l2", "all", MODULES, tuple("abcdef"), np.abs(place[:, None] - place))
    shown = representatives(matrix, 3)
    assert shown.names == ("b", "d", "f")
    np.testing.assert_allclose(shown.values[0], [0, 9.9, 29.9])
    assert representatives(matrix, 6) is matrix


def test_profiles_are_lowest_mean_highest_over_pairs() -> None:
    (profile,) = profiles(
        frame(
            ("l2", "a", "b", "1.q", 1, "query", 2.0), ("l2", "a", "b", "0.q", 0, "query", 1.0),
            ("l2", "a", "c", "0.q", 0, "query", 5.0), ("l2", "a", "b", "emb", -1, "query", 9.0),
            ("l2", "a", "b", "0.v", 0, "value", 9.0),
        )
    )  # fmt: skip
    assert profile.kind == "query"
    np.testing.assert_array_equal(profile.layers, [0, 1])
    np.testing.assert_array_equal(
        [profile.low, profile.mean, profile.high], [[1, 2], [3, 2], [5, 2]]
    )


def test_an_empty_table_gives_nothing() -> None:
    assert matrices(frame()) == []
    assert profiles(frame()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_undefined_distances_are_not_measured(value: float) -> None:
    (matrix,) = matrices(frame(("cosine", "a", "b", "m", 0, "key", value)))
    assert matrix.pairs() == []


def test_profiles_keep_encoder_and_decoder_apart() -> None:
    rows = [
        ("l2", "a", "b", f"{stack}.block.{layer}.q", layer, "query", value + layer)
        for stack, value in (("encoder", 1.0), ("decoder", 5.0))
        for layer in range(2)
    ]
    columns = ["metric", "first", "second", "module", "layer", "kind", "value"]
    found = {one.kind: one.mean.tolist() for one in profiles(pd.DataFrame(rows, columns=columns))}
    assert found == {"encoder.block query": [1.0, 2.0], "decoder.block query": [5.0, 6.0]}
