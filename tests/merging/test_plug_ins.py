"""Packages that bring methods by an entry point: sound ones, and broken ones."""

import sys

import pytest

from alliage.errors import PlugInWarning, UsageError
from alliage.merging import describe, get_method, list_methods
from alliage.merging.registry import plug_ins

SOUND = (
    "from alliage.merging import method\n\n\n"
    '@method("first_only", unit="block", space="delta", paper="none")\n'
    'def first_only(deltas):\n    """Keep the first model."""\n    return deltas[0]\n'
)


def test_plug_ins_come_through_entry_points(install_plug_in):
    install_plug_in("my_merge", SOUND, first="first_only")
    assert "first_only" in list_methods()
    assert get_method("first_only") is sys.modules["my_merge"].first_only
    (plug_in,) = plug_ins()
    assert str(plug_in) == "my-merge 1.2 (first = my_merge:first_only)"
    assert (plug_in.methods, plug_in.problem) == (("first_only",), "")


def test_two_entries_of_one_module_are_both_sound(install_plug_in):
    install_plug_in("my_merge", SOUND, first="first_only", again="first_only")
    assert [each.methods for each in plug_ins()] == [("first_only",)] * 2
    assert not any(each.problem for each in plug_ins())


BROKEN = {
    "no such module": ("import not_there\n", "ModuleNotFoundError: No module named 'not_there'"),
    "a syntax error": ("def first_only(:\n", "SyntaxError: "),
    "no such attribute": ("x = 1\n", "AttributeError: "),
    "a built-in's name": (
        SOUND.replace('"first_only"', '"ties"'),
        "ValueError: 'ties' is already the merge method",
    ),
    "an annotation that is nothing": (
        SOUND.replace("(deltas)", '(deltas, *, share: "Fraction" = 1.0)'),
        "NameError: ",
    ),
    "a parameter without a hint": (SOUND.replace("(deltas)", "(deltas, *, share=1.0)"), "share"),
    "it leaves Python": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "no decorator": ("def first_only(deltas):\n    return deltas[0]\n", "it registers no method"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plug_in_leaves_all_other_methods_alone(install_plug_in, how):
    source, why = BROKEN[how]
    known = list_methods()
    install_plug_in("broken", source, first="first_only")
    with pytest.warns(PlugInWarning, match=r"broken 1\.2 \(first = broken:first_only\)") as seen:
        assert list_methods() == known
    (warning,) = seen
    assert why in str(warning.message)
    assert get_method("ties").__module__ == "alliage.merging.methods.ties"
    for name in ("first", "first_only"):
        with pytest.raises(UsageError, match=f"{name!r} would come with broken 1.2 ") as refused:
            describe(name)
        assert why in str(refused.value)
        assert "Mend broken, or remove it." in str(refused.value)
    with pytest.raises(UsageError, match=r"there is no merge method 'tise'\. Did you mean 'ties'"):
        describe("tise")


def test_what_a_broken_one_registered_before_it_failed_is_gone(install_plug_in):
    install_plug_in("half", SOUND + "\n\nraise RuntimeError('half way')\n", first="first_only")
    install_plug_in("my_merge", SOUND.replace("first_only", "one_only"), one="one_only")
    with pytest.warns(PlugInWarning, match="RuntimeError: half way"):
        assert "first_only" not in list_methods()
    assert "one_only" in list_methods()


def test_of_two_that_take_one_name_the_first_keeps_it(install_plug_in):
    install_plug_in("a_merge", SOUND, first="first_only")
    install_plug_in("b_merge", SOUND, first="first_only")
    with pytest.warns(PlugInWarning, match="already the merge method [ab]_merge"):
        assert "first_only" in list_methods()
    assert sorted(bool(each.problem) for each in plug_ins()) == [False, True]
