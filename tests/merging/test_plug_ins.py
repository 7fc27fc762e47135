"""Packages that bring methods by an entry point: sound ones, and broken ones."""

import importlib
import sys

import pytest

from alliage.errors import PlugInWarning, UsageError
from alliage.merging import describe, get_method, list_methods
from alliage.merging.registry import plug_in_of, plug_ins

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


def test_a_broken_one_takes_no_method_of_a_sound_module_along(install_plug_in):
    install_plug_in("a_sound", SOUND)
    install_plug_in(
        "a_broken",
        "from a_sound import first_only\nimport not_there\n",
        broken="first_only",
        sound="a_sound:first_only",
    )
    with pytest.warns(PlugInWarning, match=r"broken = a_broken:first_only\).*not_there") as seen:
        assert "first_only" in list_methods()
    assert len(seen) == 1
    broken, sound = plug_ins()
    assert (broken.methods, sound.methods, sound.problem) == ((), ("first_only",), "")
    assert plug_in_of("first_only") is sound


def test_a_wrong_attribute_takes_nothing_from_a_right_one_of_its_module(install_plug_in):
    install_plug_in("my_merge", SOUND, wrong="frist_only", right="first_only")
    with pytest.warns(PlugInWarning, match="has no attribute 'frist_only'"):
        assert "first_only" in list_methods()
    assert [bool(each.problem) for each in plug_ins()] == [True, False]
    assert plug_in_of("first_only").entry == "right = my_merge:first_only"


def test_a_wrong_attribute_alone_leaves_no_method(install_plug_in):
    install_plug_in("my_merge", SOUND, wrong="frist_only")
    with pytest.warns(PlugInWarning, match="has no attribute 'frist_only'"):
        assert "first_only" not in list_methods()


def test_a_package_that_cannot_be_imported_leaves_nothing_of_its_modules(install_plug_in):
    install_plug_in("my_merge.inner", SOUND)
    install_plug_in("my_merge.__init__", "from my_merge import inner\nimport not_there\n")
    install_plug_in("other", "from my_merge import inner\n", other="inner")
    with pytest.warns(PlugInWarning, match="No module named 'not_there'"):
        assert "first_only" not in list_methods()


def test_a_value_that_names_no_module_leaves_all_others_alone(install_plug_in):
    install_plug_in("my_merge", SOUND, wrong="my-merge:first_only", right="first_only")
    with pytest.warns(PlugInWarning, match="'my-merge:first_only' is no module:attribute"):
        assert "first_only" in list_methods()


@pytest.mark.parametrize("value", ["sub:first_only", "sub:inner"])
def test_a_package_that_a_program_imported_before_is_sound(install_plug_in, value):
    install_plug_in("sub.inner", SOUND)
    install_plug_in("sub.__init__", "from sub.inner import first_only\n", sub=value)
    importlib.import_module("sub")
    assert "first_only" in list_methods()
    (plug_in,) = plug_ins()
    assert (plug_in.methods, plug_in.problem) == (("first_only",), "")


def test_what_an_imported_package_names_is_its_own_wherever_it_stands(install_plug_in):
    install_plug_in("elsewhere", SOUND)
    install_plug_in("facade", "from elsewhere import first_only\n", facade="first_only")
    importlib.import_module("facade")
    (plug_in,) = plug_ins()
    assert (plug_in.methods, plug_in.problem) == (("first_only",), "")


def test_a_method_of_a_package_that_another_one_imports_stays_its_own(install_plug_in):
    other = SOUND.replace("first_only", "one_only")
    install_plug_in("b_merge", SOUND)
    install_plug_in("a_merge", f"import b_merge\n{other}", a="one_only", b="b_merge:first_only")
    assert [each.methods for each in plug_ins()] == [("one_only",), ("first_only",)]
