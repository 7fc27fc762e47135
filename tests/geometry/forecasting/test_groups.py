from alliage.geometry.forecasting.groups import groups


def test_no_pair_of_a_group_loses_more_than_the_threshold() -> None:
    # a and b lose 1 and 3: the larger counts. b and c lose 1 and 1. a and c lose 5.
    losses = {("a", "b"): 1.0, ("b", "a"): 3.0, ("b", "c"): 1.0, ("c", "b"): 1.0,
              ("a", "c"): 5.0, ("c", "a"): 0.0}  # fmt: skip
    names = ["a", "b", "c"]
    assert groups(names, losses, 0.5) == [("a",), ("b",), ("c",)]
    assert groups(names, losses, 2.0) == [("a",), ("b", "c")]
    # At 3 a fits with b, but not with c, which is with b already.
    assert groups(names, losses, 3.0) == [("a",), ("b", "c")]
    assert groups(names, losses, 5.0) == [("a", "b", "c")]


def test_pairs_without_a_forecast_stay_apart() -> None:
    assert groups(["a", "b"], {("a", "b"): -1.0}, 100.0) == [("a",), ("b",)]
    assert groups(["a", "b"], {("a", "b"): -1.0, ("b", "a"): -2.0}, 0.0) == [("a", "b")]
    assert groups(["a"], {}, 1.0) == [("a",)]
