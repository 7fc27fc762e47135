import alliage as package


def test_help_lists_the_commands(alliage):
    done = alliage("--help")
    assert done.returncode == 0
    for name in ("inspect", "compare", "merge", "methods", "prune", "tune", "evaluate", "report"):
        assert name in done.stdout


def test_version(alliage):
    assert alliage("--version").stdout == f"alliage {package.__version__}\n"


def test_a_wrong_command_gets_the_nearest(alliage):
    done = alliage("mergee a")
    assert done.returncode == 2
    assert "merge" in done.stderr
    assert done.stdout == ""


def test_a_missing_argument_is_a_usage_error(alliage):
    assert alliage("compare sentiment").returncode == 2


def test_errors_go_to_stderr_without_a_traceback(alliage):
    done = alliage("inspect nowhere base --json")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"model_type": "bert"' in done.stdout  # what can be read is shown
