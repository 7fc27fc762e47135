import pytest

from alliage.errors import UsageError
from alliage.merging import describe, list_methods
from alliage.merging.registry import Method
from alliage.merging.signature import In
from alliage.testing import check_method
from alliage.testing.conformance import _models_may_be_permuted, _one_model_gives_that_model


@pytest.mark.parametrize("name", list_methods())
def test_every_method_conforms(name):
    check_method(name)


def wrong(function) -> Method:
    known = describe("task_arithmetic")
    return Method(
        **{field: getattr(known, field) for field in Method.__slots__} | {"function": function}
    )


def test_the_suite_finds_broken_methods():
    with pytest.raises(AssertionError):
        _one_model_gives_that_model(wrong(lambda deltas, scale: deltas[0] * 0.5))
    with pytest.raises(AssertionError):
        _models_may_be_permuted(wrong(lambda deltas, weight: deltas[0] * weight[0]))


def test_unknown_methods_get_the_nearest_name():
    with pytest.raises(UsageError, match="'ties'"):
        check_method("tiess")


def test_ranges():
    assert 0 in In(0, 1)
    assert 0 not in In(0, 1, open_low=True)
    assert float("inf") not in In(0)
    assert str(In(0, 1, open_low=True)) == "(0, 1]"
    assert str(In(0)) == "[0, inf)"
