"""Start-up stays instant: nothing heavy is imported before it is needed."""

import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize(
    "verb",
    ["open", "merge", "apply", "compare", "prune", "tune", "extract", "evaluate", "calibrate"],
)
def test_the_verbs(verb):
    import alliage

    assert callable(getattr(alliage, verb))
    assert verb in dir(alliage)


def test_wrong_names_are_attribute_errors():
    import alliage

    with pytest.raises(AttributeError, match="nothing"):
        _ = alliage.nothing


def test_the_installed_command_runs(family):
    """The console script itself, in a process of its own."""
    script = Path(sys.executable).with_name("alliage")
    done = subprocess.run(
        [script, "inspect", family / "base"], capture_output=True, text=True, check=True
    )
    assert "BertModel" in done.stdout
    wrong = subprocess.run([script, "inspect", "nowhere"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("alliage: nowhere: ")
