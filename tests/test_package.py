"""Start-up stays instant: nothing heavy is imported before it is needed."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "transformers", "peft", "pandas", "matplotlib", "sklearn", "xarray")


def loaded_after(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_alliage_imports_nothing_heavy():
    assert loaded_after("import alliage") == set()


def test_the_command_line_imports_nothing_heavy():
    assert loaded_after("import alliage.cli") == set()


def test_inspecting_a_checkpoint_needs_no_torch(family):
    code = f"import alliage; alliage.open({str(family / 'base')!r}).ties"
    assert loaded_after(code) == set()


@pytest.mark.parametrize("verb", ["open", "merge", "compare", "prune", "tune", "evaluate"])
def test_the_verbs(verb):
    import alliage

    assert callable(getattr(alliage, verb))
    assert verb in dir(alliage)


def test_wrong_names_are_attribute_errors():
    import alliage

    with pytest.raises(AttributeError, match="nothing"):
        _ = alliage.nothing
