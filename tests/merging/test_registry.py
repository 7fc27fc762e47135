from functools import partial
from typing import Annotated, Literal

import pytest

from alliage import merging
from alliage.errors import UsageError
from alliage.merging import describe, get_method, list_methods, method, registry, ties
from alliage.merging.signature import In


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


def test_units_and_spaces_that_are_none_are_refused():
    with pytest.raises(ValueError, match="unit of the merge method 'mine' must be one of block, "):
        method("mine", unit="blocks", space="delta", paper="none")
    with pytest.raises(ValueError, match="must be one of weight, delta, got 'deltas'"):
        method("mine", unit="block", space="deltas", paper="none")


class Counts:
    """A first pass that lacks nothing."""

    reads = ("density",)

    def __init__(self, models, numel, density):
        pass

    @staticmethod
    def scope(**parameters):
        return "tensor"

    @staticmethod
    def least_passes(**parameters):
        return 1

    @staticmethod
    def memory(models, sampled):
        return 0

    def update(self, tensors, place, uniform=None):
        pass

    def result(self):
        return {"count": 1}


def counted(deltas, *, density: float = 1.0, count=None):
    """Keep the first."""
    return deltas[0]


@pytest.mark.parametrize("absent", ["reads", "scope", "least_passes", "memory", "update", "result"])
def test_a_first_pass_that_lacks_something_is_refused(absent):
    members = {name: value for name, value in vars(Counts).items() if name != absent}
    lacking = type("Lacking", (), members)
    what = rf"^Lacking, the first pass of the merge method 'mine', lacks {absent}: see FirstPass"
    with pytest.raises(ValueError, match=what):
        method("mine", unit="block", space="delta", paper="none", first_pass=lacking)


def test_a_first_pass_that_reads_what_is_no_parameter_is_refused(monkeypatch):
    describe("ties")  # all others are there
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    declare = partial(method, "mine", unit="block", space="delta", paper="none")
    declare(first_pass=Counts)(counted)
    assert describe("mine").readings(density=1.0) == 2
    what = "pass of the merge method 'mine' reads 'share', which is none of its parameters"
    with pytest.raises(ValueError, match=what):
        declare(first_pass=type("Reads", (Counts,), {"reads": ("share",)}))(counted)


def a_word(deltas, *, mode: str = "a"):
    """Take a word."""


def maybe_a_word(deltas, *, mode: Literal["a", "b"] | None = None):
    """Take a word or none."""


def marked(deltas, *, mode: Annotated[str, In(0, 1)] = "a"):
    """Take a word in a range."""


def numbers(deltas, *, mode: tuple[float, ...] = (0.5,)):
    """Take several numbers."""


def counts(deltas, *, mode: Literal[1, 2] = 1):
    """Take one of some numbers."""


def unhinted(deltas, *, mode=1.0):
    """Say nothing of its kind."""


@pytest.mark.parametrize("function", [a_word, maybe_a_word, marked, numbers, counts, unhinted])
def test_parameters_that_cannot_be_declared_are_refused(function):
    name = (
        rf"test_registry\.{function.__name__}: mode.*; parameters are bool, int, float, a Literal"
    )
    with pytest.raises(ValueError, match=name):
        method("mine", unit="block", space="delta", paper="none")(function)
    with pytest.raises(UsageError, match="no merge method 'mine'"):
        describe("mine")


def test_parameters_by_position_are_refused():
    def mine(deltas, scale: float = 1.0):
        """Scale them."""

    with pytest.raises(ValueError, match="mine takes deltas, scale by position: expected 1, then"):
        method("mine", unit="block", space="delta", paper="none")(mine)
    with pytest.raises(ValueError, match="expected 2, then"):
        method("mine", unit="factors", space="delta", paper="none")(lambda B: B)


def test_a_taken_name_is_refused():
    def mine(deltas):
        """Steal a name."""

    with pytest.raises(ValueError, match="already the merge method"):
        method("ties", unit="block", space="delta", paper="none")(mine)
