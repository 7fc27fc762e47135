"""A search's table against merging each point to disk and evaluating it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

import alliage
from alliage.errors import AlliageError, UsageError
from alliage.merging import load_recipe, plan, run
from alliage.search import LearningSettings, running
from alliage.search.candidates import Candidates
from alliage.search.questions import questions_of
from alliage.search.recipe_file import load_search
from alliage.search.running import Machine, learn_coefficients, search_points, search_soup
from alliage.search.space import Search, parse_spaces
from alliage.search.trials import STUDY, open_study

GRID = [
    {
        "method": "ties",
        "parameters": {"density": [0.1, 0.4], "scale": {"low": 1, "high": 3, "step": 1}},
    },
    {"method": "task_arithmetic", "parameters": {"scale": [0.3, 2.0]}},
]
HEADS = {"mood": "sentiment", "themes": "topics"}


def points(recipe, content):
    return parse_spaces(content, recipe, "recipe")


def table(outcome):
    return [(t.method, dict(t.parameters), t.score and t.score.by_task) for t in outcome.trials]


def test_an_exhaustive_grid_by_files_says_the_same(recipe, tasks, asked, tmp_path):
    found = search_points(recipe(), points(recipe(), GRID), asked, tmp_path / "found")
    assert len(found.trials) == 2 * 3 + 2
    space = Search(recipe(), points(recipe(), GRID))
    by_files = []
    for number, point in enumerate(space.grid()):
        run(plan(space.recipe_at(point)), tmp_path / str(number))
        scores = tuple(
            alliage.evaluate(tmp_path / str(number), task, head=HEADS[task.name])[
                task.name
            ].metrics["accuracy"]
            for task in tasks
        )
        by_files.append((point[0].method, dict(point[1]), scores))
    assert table(found) == by_files
    means = [sum(scores) / 2 for _, _, scores in by_files]
    assert len(set(means)) > 1
    assert found.score.value == max(means)
    best = Search(recipe(), points(recipe(), GRID)).grid()[means.index(max(means))]
    assert found.recipe == space.recipe_at(best)


def test_the_best_recipe_merges_to_the_best_score(recipe, tasks, asked, tmp_path, monkeypatch):
    found = search_points(recipe(), points(recipe(), GRID), asked, tmp_path / "found")
    monkeypatch.chdir(tmp_path)  # its paths count from its own folder
    again = load_recipe(found.path)
    assert (again.method, again.parameters) == (found.recipe.method, found.recipe.parameters)
    run(plan(again), tmp_path / "merged")
    scores = [
        alliage.evaluate(tmp_path / "merged", task, head=HEADS[task.name])[task.name]
        for task in tasks
    ]
    assert [each.metrics["accuracy"] for each in scores] == list(found.score.by_task)
    assert found.path.read_text().startswith("# alliage search: the best of 8 merges, ")


@pytest.mark.parametrize("endless", [False, True])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(recipe, asked, tmp_path, endless):
    values = {"low": 0.5, "high": 3.0} if endless else [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    content = {"parameters": {"scale": values, "density": {"low": 0.05, "high": 0.9}}}
    if not endless:
        content["parameters"]["density"] = [0.2, 0.4]
    settings = {"trials": 12, "seed": 5}
    spaces = points(recipe(), content)
    whole = search_points(recipe(), spaces, asked, tmp_path / "whole", **settings)

    class Cut(Exception):
        pass

    def cut(stage, done, total):
        if done == 4:
            raise Cut

    with pytest.raises(Cut):
        search_points(recipe(), spaces, asked, tmp_path / "cut", on_event=cut, **settings)
    with pytest.raises(UsageError, match=r"a search is here already\. .*--resume"):
        search_points(recipe(), spaces, asked, tmp_path / "cut", **settings)
    again = search_points(recipe(), spaces, asked, tmp_path / "cut", resume=True, **settings)
    assert table(again) == table(whole)
    assert again.recipe == whole.recipe
    if endless:
        assert len({str(each) for each in table(whole)}) == 12
    # It is complete: nothing is scored once more.
    done = search_points(recipe(), spaces, asked, tmp_path / "cut", resume=True, **settings)
    assert [t.seconds for t in done.trials] == [t.seconds for t in again.trials]


def test_a_killed_process_leaves_a_search_that_goes_on(family, recipe, asked, tmp_path):
    program = textwrap.dedent("""
        import os, signal, sys
        from alliage.search import trials
        from alliage.search.candidates import Score
        from alliage.merging import parse_recipe
        from alliage.search.space import Search, parse_spaces
        recipe = parse_recipe({"method": "ties", "base": "b", "models": ["a"]})
        content = {"parameters": {"scale": {"low": 0, "high": 9}}}
        space = Search(recipe, parse_spaces(content, recipe, "here"))
        def score(made):
            if len(seen) == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(made.parameters["scale"])
            return Score(-(made.parameters["scale"] - 3) ** 2, ())
        seen = []
        from pathlib import Path
        study = trials.open_study(Path(sys.argv[1]), {}, maximise=True)
        found = trials.search(study, space, score, maximise=True, trials=15)
        print([t.parameters["scale"] for t in found.trials])
        """)

    def attempt(folder, die):
        return subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / folder), str(die)],
            capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip

    whole = attempt("whole", 99)
    assert whole.returncode == 0, whole.stderr
    assert attempt("cut", 6).returncode == -signal.SIGKILL
    with (tmp_path / "cut" / STUDY).open("a") as file:
        file.write('{"op_code": 4, "torn')  # a line that was never written to its end
    assert attempt("cut", 5).returncode == -signal.SIGKILL
    last = attempt("cut", 99)
    assert last.returncode == 0, last.stderr
    assert last.stdout == whole.stdout
    assert len(set(eval(last.stdout))) == 15


def test_a_search_of_something_else_is_not_gone_on_with(recipe, asked, tasks, tmp_path):
    def search(made, asked, content, **settings):
        return search_points(made, points(made, content), asked, tmp_path, resume=True, **settings)

    content = {"parameters": {"scale": [1.0]}}
    search(recipe(), asked, content)
    with pytest.raises(UsageError, match=r"was of other values\. Choose another folder"):
        search(recipe(), asked, {"parameters": {"scale": [1.5]}})
    with pytest.raises(UsageError, match="of other recipe"):
        search(recipe(parameters={"density": 0.5}), asked, content)
    with pytest.raises(UsageError, match="of other tasks"):
        search(recipe(), questions_of(tasks, metric="f1_macro"), content)
    with pytest.raises(UsageError, match="of other seed"):
        search(recipe(), asked, content, seed=3)
    with pytest.raises(UsageError, match="of other models, recipe"):
        search(recipe(models=("sentiment", "topics-lora")), asked, content)


def test_a_search_of_other_labels_is_not_gone_on_with(recipe, asked, tasks, tmp_path):
    content = {"parameters": {"scale": [1.0]}}
    search_points(recipe(), points(recipe(), content), asked, tmp_path)
    turned = [
        replace(
            task,
            splits={"validation": tuple(e._replace(label=1) for e in task.splits["validation"])},
        )
        for task in tasks
    ]
    with pytest.raises(UsageError, match="was of other tasks"):
        search_points(
            recipe(), points(recipe(), content), questions_of(turned), tmp_path, resume=True
        )


def test_a_search_that_never_began_is_none(recipe, tasks, tmp_path):
    content = {"parameters": {"scale": [1.0]}}
    wrong = questions_of(tasks, heads={"mood": "sentimnt"})
    said = "--head mood=sentimnt: the merge has no such head. Did you mean 'sentiment'"
    with pytest.raises(UsageError, match=re.escape(said)):
        search_points(recipe(), points(recipe(), content), wrong, tmp_path)
    # A study in which nothing came to its end, of other models and another direction.
    open_study(tmp_path, {"of": "something else"}, maximise=False)
    found = search_points(recipe(), points(recipe(), content), questions_of(tasks), tmp_path)
    assert len(found.trials) == 1


def test_the_best_of_another_search_stays(recipe, tasks, asked, family, tmp_path):
    content = {"parameters": {"scale": [1.0]}}
    soup = questions_of(tasks[:1])
    search_soup([str(family / "sentiment")] * 2, "uniform", soup, tmp_path)
    kept = (tmp_path / "best.yml").read_bytes()
    searches = [
        lambda: search_soup([str(family / "sentiment")], "uniform", soup, tmp_path),
        lambda: search_points(recipe(), points(recipe(), content), asked, tmp_path, resume=True),
        lambda: search_points(recipe(), points(recipe(), content), asked, tmp_path),
        lambda: learn_coefficients(recipe(), asked, tmp_path, LearningSettings(steps=1)),
    ]
    for search in searches:
        with pytest.raises(UsageError, match=r"a search is here already\. Choose another folder"):
            search()
    assert (tmp_path / "best.yml").read_bytes() == kept


def test_one_search_at_a_time_works_in_a_folder(recipe, tasks, asked, family, tmp_path):
    out = tmp_path / "out"
    spaces = points(recipe(), {"parameters": {"scale": [0.5, 1.0, 1.5]}})
    others = [
        lambda: search_points(recipe(), spaces, asked, out),
        lambda: search_points(recipe(), spaces, asked, out, resume=True),
        lambda: search_soup([str(family / "sentiment")], "uniform", questions_of(tasks[:1]), out),
        lambda: learn_coefficients(recipe(), asked, out, LearningSettings(steps=1)),
    ]
    refused = []

    def meanwhile(stage, done, total):
        before = (out / STUDY).read_bytes()
        for other in others:
            with pytest.raises(UsageError, match=r"a search runs here\. Wait for it"):
                other()
            refused.append(done)
        assert (out / STUDY).read_bytes() == before

    found = search_points(recipe(), spaces, asked, out, on_event=meanwhile)
    assert refused == [number for number in range(4) for _ in others]
    assert [trial.score is None for trial in found.trials] == [False] * 3
    assert sorted(item.name for item in out.iterdir()) == ["best.yml", STUDY]
    assert len(search_points(recipe(), spaces, asked, out, resume=True).trials) == 3


@pytest.mark.parametrize("there", [False, True])
def test_a_search_that_cannot_begin_leaves_no_folder(recipe, tasks, tmp_path, there):
    out = tmp_path / "out"
    if there:
        out.mkdir()
    wrong = questions_of(tasks, heads={"mood": "sentimnt"})
    with pytest.raises(UsageError, match="the merge has no such head"):
        search_points(recipe(), points(recipe(), GRID), wrong, out)
    assert [item.name for item in tmp_path.rglob("*")] == ["out"] * there


def test_no_more_is_planned_than_shows_that_a_search_can_begin(recipe):
    planned = []

    def counted(made, **options):
        planned.append(made.method)
        return plan(made, **options)

    space = Search(recipe(), points(recipe(), [{"method": "slerp"}, *GRID]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "plan", counted)
        assert running._first_sound(space, Machine()).method.name == "slerp"
    assert planned == ["slerp"]


def test_the_first_method_need_not_fit(recipe, tasks, tmp_path):
    """SLERP merges two models; TIES goes on with three."""
    made = recipe(models=("sentiment", "topics", "sentiment"))
    asked = questions_of(tasks, heads=HEADS)
    content = [{"method": "slerp"}, {"parameters": {"scale": [1.0]}}]
    found = search_points(made, points(made, content), asked, tmp_path / "some")
    assert [trial.score is None for trial in found.trials] == [True, False]
    assert "slerp merges 2 models, found 3" in found.trials[0].problem
    with pytest.raises(UsageError, match="slerp merges 2 models, found 3"):
        search_points(made, points(made, content[:1]), asked, tmp_path / "none")


def test_a_point_that_is_chosen_again_is_not_scored_again(recipe, asked, tmp_path, monkeypatch):
    scored = []
    score = Candidates.score
    monkeypatch.setattr(
        Candidates, "score", lambda self, made: scored.append(made) or score(self, made)
    )
    content = {"parameters": {"scale": [0.5, 1.0, 2.0], "vote": ["sum", "count"]}}
    found = search_points(recipe(), points(recipe(), content), asked, tmp_path, trials=5)
    assert len(found.trials) == 5  # fewer than the grid's 6: chosen, not enumerated
    assert len(scored) == len({str(each) for each in table(found)}) < 5


def test_merges_that_cannot_be_made_are_passed_over(recipe, asked, tmp_path):
    content = {"method": "task_arithmetic", "parameters": {"scale": [1.0, 1e38]}}
    made = recipe("task_arithmetic", dtype="float16")
    found = search_points(made, points(made, content), asked, tmp_path / "some")
    assert [trial.score is None for trial in found.trials] == [False, True]
    assert "no finite F16" in found.trials[1].problem
    assert len(found.to_rows()) == 2
    content["parameters"]["scale"] = [1e38, 2e38]
    with pytest.raises(AlliageError, match="no finite F16"):
        search_points(made, points(made, content), asked, tmp_path / "none")


def test_errors_are_minimised(recipe, tasks, tmp_path):
    asked = questions_of(tasks, metric="ece")
    content = {"parameters": {"scale": [0.5, 1.0, 2.0, 3.0]}}
    found = search_points(recipe(), points(recipe(), content), asked, tmp_path)
    assert found.score.value == min(trial.score.value for trial in found.trials)


def test_entropy_is_a_criterion_without_labels(recipe, tasks, tmp_path):
    hidden = [
        replace(task, splits={"test": [e._replace(label=None) for e in task.splits["validation"]]})
        for task in tasks
    ]
    asked = questions_of(hidden, split="test", criterion="entropy")
    content = {"parameters": {"scale": [0.5, 2.0, 8.0]}}
    found = search_points(recipe(), points(recipe(), content), asked, tmp_path / "found")
    # The same by hand, through the models of the best merge as they are loaded from files.
    run(plan(found.recipe), tmp_path / "merged")
    from alliage.evaluation import load_classifier

    with alliage.open(tmp_path / "merged") as checkpoint:
        for task, value in zip(hidden, found.score.by_task, strict=True):
            classifier = load_classifier(checkpoint, task, head=HEADS[task.name])
            total = 0.0
            for example in task.splits["test"]:
                batch = classifier.encoder.collate(classifier.encoder.encode([example]))
                with torch.inference_mode():
                    p = classifier.model(**batch).logits[0].double().softmax(0)
                total -= float((p * p.log()).sum())
            assert value == pytest.approx(total / len(task.splits["test"]), abs=1e-6)
    assert found.score.value == min(trial.score.value for trial in found.trials)


def test_threads_do_not_change_the_table(recipe, asked, tmp_path):
    one, two = (
        search_points(
            recipe(), points(recipe(), GRID), asked, tmp_path / str(threads),
            machine=Machine(threads=threads, memory=2**26),
        )
        for threads in (1, 2)
    )  # fmt: skip
    assert table(one) == table(two)


def test_a_recipe_s_own_section(family, tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text(
        "method: ties\nbase: base\nmodels: [a, b]\nsearch: {parameters: {scale: [1, 2]}}\n"
    )
    recipe, (space,) = load_search(path)
    assert (recipe.method, space.parameters["scale"].values) == ("ties", (1, 2))
    path.write_text("method: ties\nbase: base\nmodels: [a, b]\nsaerch: {}\n")
    with pytest.raises(UsageError, match="unknown key saerch"):
        load_search(path)
    path.write_text("method: ties\nbase: base\nmodels: [a, b]\n")
    assert load_search(path)[1] == ()
