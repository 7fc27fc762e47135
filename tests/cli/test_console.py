import json

import pytest

from alliage.cli import console


def test_infinity_is_no_json_and_scalars_have_no_angles(alliage, workspace):
    """CLIP's logit_scale has no dimension; martin is infinite between orthogonal spaces."""
    import torch
    from safetensors.torch import save_file

    for name, column in (("plain", None), ("left", 0), ("right", 1)):
        (workspace / name).mkdir()
        matrix = torch.zeros(4, 2)
        if column is not None:
            matrix[column, column] = 1.0
        tensors = {"layers.0.w": matrix, "logit_scale": torch.tensor(float(column or 0))}
        save_file(tensors, workspace / name / "model.safetensors")
    done = alliage("compare --base plain left right --metrics martin,l2 --json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(word))
    assert document["metrics"]["martin"]["mean"][0][1] is None
    assert document["metrics"]["l2"]["mean"][0][1] > 0


def test_titles_are_lines_of_their_own_however_narrow_the_table(capsys):
    title = "geodesic, mean over 22 modules"
    console.print_table(title, ("", "b"), [("a", 1.0)])
    titled = capsys.readouterr().out
    console.print_table("", ("", "b"), [("a", 1.0)])
    assert titled == f"{title}\n{capsys.readouterr().out}"
    assert len(title) > max(map(len, titled.splitlines()[1:]))


def test_nan_and_infinity_are_null_at_any_depth(capsys):
    console.print_json({"a": [float("nan"), (float("inf"), 0.5)], "b": {"c": -float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [None, 0.5]], "b": {"c": None}}


def test_names_from_files_cannot_steer_the_terminal(alliage, workspace, capsys):
    """Nor split a problem's line, nor turn text around."""
    import torch
    from safetensors.torch import save_file

    name = "\x1b[2J\x07fine\nalliage: all is well\u202eexe"
    (workspace / "odd").mkdir()
    save_file({name: torch.zeros(2, 2)}, workspace / "odd" / "model.safetensors")
    done = alliage("compare --base base odd")
    assert done.returncode == 1
    assert r"\x1b[2J\x07fine\nalliage: all is well\u202eexe: is not in the base." in done.stderr
    assert not any(character in done.stderr + done.stdout for character in "\x1b\x07\u202e")
    assert "\nalliage: all is well" not in done.stderr
    console.print_table("", ("name",), [(name,)])
    assert not any(character in capsys.readouterr().out for character in "\x1b\x07\u202e")
