import sys
from importlib.metadata import entry_points

import pytest

from alliage.merging import describe, get_method, list_methods, method, ties
from alliage.merging.registry import _load_all


def test_the_decorator_returns_the_function():
    assert get_method("ties") is ties


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


def test_plug_ins_come_through_entry_points(tmp_path, monkeypatch):
    (tmp_path / "my_merge.py").write_text(
        "from alliage.merging import method\n\n\n"
        '@method("first_only", unit="block", space="delta", paper="none")\n'
        'def first_only(deltas):\n    """Keep the first model."""\n    return deltas[0]\n'
    )
    info = tmp_path / "my_merge-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-merge\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[alliage.merge_methods]\nfirst = my_merge:first_only\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [e.name for e in entry_points(group="alliage.merge_methods")] == ["first"]
    _load_all.cache_clear()
    assert "first_only" in list_methods()
    assert get_method("first_only") is sys.modules["my_merge"].first_only
    from alliage.merging.registry import _REGISTRY

    del _REGISTRY["first_only"]
