"""The examples that every command's help shows are run as they stand."""

import json
from importlib import import_module

import pytest

from alliage.cli.app import COMMANDS

EXAMPLES = [
    (name, example)
    for name in COMMANDS
    for example in import_module(f"alliage.cli.{name}").EXAMPLES
    if name != "demo"  # takes minutes; tests/integration runs it
]
NEEDS = {
    "apply": ["alliage merge --method emr --base base sentiment topics -o merged"],
    "signs": ["alliage signs sentiment --base base -o oracle.safetensors"],
    "report": ["alliage evaluate sentiment --task sentiment-data -o results"],
    "verify": ["alliage merge merge.yml -o merged"],
}


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_example(alliage, name, example):
    for line in NEEDS.get(name, []):
        assert alliage(line).returncode == 0
    done = alliage(example)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "--json" in example:
        json.loads(done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_two_examples(alliage, name):
    done = alliage(f"alliage {name} --help")
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    examples = import_module(f"alliage.cli.{name}").EXAMPLES
    assert len(examples) == 2
    for example in examples:
        assert example in shown
