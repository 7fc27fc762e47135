import pytest

from alliage.errors import UsageError
from alliage.merging import list_methods
from alliage.merging.signature import In
from alliage.testing import check_method


@pytest.mark.parametrize("name", list_methods())
def test_every_method_conforms(name):
    check_method(name)


def test_unknown_methods_get_the_nearest_name():
    with pytest.raises(UsageError, match="'ties'"):
        check_method("tiess")


def test_ranges():
    assert 0 in In(0, 1)
    assert 0 not in In(0, 1, open_low=True)
    assert float("inf") not in In(0)
    assert str(In(0, 1, open_low=True)) == "(0, 1]"
    assert str(In(0)) == "[0, inf)"
