import pytest

from alliage import merging
from alliage.merging import describe, get_method, list_methods, method, ties


def test_the_decorator_returns_the_function():
    assert get_method("ties") is ties


def test_every_method_of_ours_can_be_imported_by_its_name():
    ours = [name for name in list_methods() if describe(name).function.__module__[:7] == "alliage"]
    assert set(ours) <= set(merging.__all__)
    assert all(getattr(merging, name) is get_method(name) for name in ours)


def test_parameters_are_declared_once_in_the_signature():
    parameters = describe("ties").parameters
    # what passes supply is not set
    assert list(parameters) == [
        "weight", "density", "scale", "trim", "kept", "vote", "zero", "combine",
    ]  # fmt: skip
    assert parameters["density"].default == 0.2
    assert str(parameters["density"].range) == "(0, 1]"
    assert parameters["weight"].per_model
    assert parameters["density"].meaning.startswith("Kᵢ, the share of entries")


def test_a_taken_name_is_refused():
    def mine(deltas):
        """Steal a name."""

    with pytest.raises(ValueError, match="already the merge method"):
        method("ties", unit="block", space="delta", paper="none")(mine)
