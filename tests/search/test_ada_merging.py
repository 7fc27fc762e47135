from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from transformers import BertForSequenceClassification

import alliage
from alliage.errors import AlliageError, UsageError
from alliage.merging import load_recipe, parse_recipe, plan, run
from alliage.search import ada_merging
from alliage.search.ada_merging import Settings, learn, linear_recipe
from alliage.search.candidates import Candidates
from alliage.search.held import Held
from alliage.search.questions import questions_of
from alliage.search.running import learn_coefficients
from tests.conftest import shift

MODELS = ("sentiment", "topics", "topics-lora")


@pytest.fixture(scope="module")
def sharp(family, tmp_path_factory):
    """The family with models that are far from the base, and heads that are sure of themselves."""
    home = tmp_path_factory.mktemp("sharp") / "home"
    shutil.copytree(family, home)
    for seed, name in enumerate(("sentiment", "topics")):
        model = BertForSequenceClassification.from_pretrained(home / name)
        shift(model.bert, seed, 0.2)
        with torch.no_grad():
            model.classifier.weight.mul_(40)
        model.save_pretrained(home / name)
    return home


@pytest.fixture
def recipe(sharp):
    def make(method, models=MODELS, **content):
        entries = [{"model": str(sharp / name)} for name in models]
        given = {"method": method, "base": str(sharp / "base"), "models": entries}
        return parse_recipe(given | content)

    return make


@pytest.fixture
def entropies(tasks):
    """Questions on examples whose labels nobody knows."""
    hidden = [
        replace(
            task, splits={"validation": [e._replace(label=None) for e in task.splits["validation"]]}
        )
        for task in tasks
    ]
    return questions_of(hidden, criterion="entropy", heads={"themes": "topics"})


def whole_entropy(recipe, candidates):
    """The mean entropy over all examples of a written-down recipe's merge."""
    return candidates.score(recipe).value


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
@pytest.mark.parametrize("by", ["task", "layer"])
def test_the_gradient_agrees_with_finite_differences(recipe, entropies, tmp_path, method, by):
    linear = linear_recipe(recipe(method, MODELS))
    with Candidates(linear, entropies, tmp_path) as candidates:
        merge = ada_merging._Merge(linear, candidates)
        for each in candidates.models:  # float64: small differences are not lost
            each.classifier.model.double()
        merge._base = [base.double() for base in merge._base]
        merge._parts = [parts.double() for parts in merge._parts]
        rows = len(merge.tensors) if by == "layer" else 1
        draw = torch.Generator().manual_seed(0)
        weights = torch.rand(rows, 3, generator=draw, dtype=torch.float64)
        batches = [list(question.examples[:5]) for question in entropies]
        _, gradient = merge.entropy(weights, batches)
        assert gradient.shape == weights.shape
        some = [(0, 0), (rows // 2, 1), (rows - 1, 2), (rows // 3, 0)]
        for row, model in some:
            step = torch.zeros_like(weights)
            step[row, model] = 1e-3
            up, down = (merge.entropy(weights + sign * step, batches)[0] for sign in (1, -1))
            # Logits are taken in float32: 1e-7 over a step of 2e-3.
            assert float(gradient[row, model]) == pytest.approx((up - down) / 2e-3, abs=2e-4)
        assert gradient.abs().max() > 1e-2


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
@pytest.mark.parametrize("by", ["task", "layer"])
def test_entropy_falls_and_the_recipe_has_what_was_learned(recipe, entropies, tmp_path, method, by):
    settings = Settings(by=by, steps=60, learning_rate=0.02, batch_size=50)
    linear = linear_recipe(recipe(method, MODELS))
    with Candidates(linear, entropies, tmp_path) as candidates:
        start = learn(linear, candidates, replace(settings, steps=0)).recipe
        learned = learn(linear, candidates, settings)
        first, last = (whole_entropy(each, candidates) for each in (start, learned.recipe))
    assert len(learned.entropies) == 60
    # A batch of 50 is all 21 examples of each task: the first step sees what the start scores.
    assert learned.entropies[0] == pytest.approx(first, abs=1e-5)
    assert last < first - 0.05
    assert learned.entropies[-1] == pytest.approx(last, abs=1e-2)


def test_the_merge_of_the_recipe_is_the_sum(recipe, entropies, tmp_path, monkeypatch):
    """θ₀ + Σ λₖₗτₖₗ, in the files that `merge` writes, from the λ in best.yml alone."""
    settings = Settings(by="layer", steps=5, learning_rate=0.05)
    found = learn_coefficients(
        recipe("task_arithmetic", MODELS), entropies, tmp_path / "found", settings
    )
    monkeypatch.chdir(tmp_path)
    again = load_recipe(found.path)
    run(plan(again), tmp_path / "merged")
    vectors = plan(again).vectors
    with alliage.open(tmp_path / "merged") as merged, alliage.open(again.base) as base:
        for name in {name for vector in vectors for name in vector.shapes}:
            expected = base.read(name).double()
            for entry, vector in zip(again.models, vectors, strict=True):
                rules = entry.parameters["weight"]
                (own,) = [rule["value"] for rule in rules if rule["filter"] == name]
                assert abs(own - 0.3) <= 5 * 0.05 * 1.02  # Adam's steps are of the learning rate
                if name in vector.shapes:
                    expected += own * vector.delta(name).double()
            torch.testing.assert_close(merged.read(name).double(), expected, rtol=0, atol=1e-6)
    lengths = [len(rule["filter"]) for rule in again.models[0].parameters["weight"]]
    assert lengths == sorted(lengths, reverse=True)
    assert any("entropy of a batch" in note for note in found.notes)


def test_ada_merging_with_ties_trims_and_elects_without_weights(recipe, entropies, tmp_path):
    """AdaMerging++: Φ keeps the largest entries that agree with the unweighted vote."""
    linear = linear_recipe(recipe("ties", ("sentiment", "topics"), parameters={"density": 0.3}))
    with Candidates(linear, entropies[:1], tmp_path) as candidates:
        merge = ada_merging._Merge(linear, candidates)
        parts = {t.name: p for t, p in zip(merge.tensors, merge._parts, strict=True)}
        vectors = candidates.plan(linear).vectors
    names = list(parts)
    flat = torch.stack([torch.cat([v.delta(n).flatten() for n in names]) for v in vectors])
    count = flat.shape[1]
    limits = [row.abs().sort().values[count - int(count * 0.3) - 1] for row in flat]
    trimmed = torch.stack(
        [row * (row.abs() >= limit) for row, limit in zip(flat, limits, strict=True)]
    )
    sign = trimmed.sum(dim=0).sign()
    expected = trimmed * (trimmed.sign() == sign)
    got = torch.cat([parts[name] for name in names], dim=1)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("by", ["task", "layer"])
def test_coefficients_are_learned_past_running_means(residual, tmp_path, by):
    """A ResNet's, by layer: the weights of what no gradient reaches stay where they began."""
    home, tasks = residual
    models = [str(home / name) for name in "ab"]
    content = {"method": "task_arithmetic", "base": str(home / "base"), "models": models}
    asked = questions_of(tasks, criterion="entropy", heads={"x": "a", "y": "b"})
    settings = Settings(by=by, steps=5, learning_rate=0.05)
    found = learn_coefficients(parse_recipe(content), asked, tmp_path / "out", settings)
    weights = [entry.parameters["weight"] for entry in found.recipe.models]
    if by == "task":
        assert all(weight != 0.3 for weight in weights)
        return
    for rules in weights:
        values = {rule["filter"]: rule["value"] for rule in rules}
        buffers = {n for n in values if n.endswith(("running_mean", "running_var"))}
        assert {n for n, value in values.items() if value == 0.3} == buffers != set()


def test_coefficients_stay_between_0_and_1(recipe, entropies, tmp_path):
    settings = Settings(by="task", steps=8, learning_rate=0.5)
    linear = linear_recipe(recipe("task_arithmetic", MODELS))
    with Candidates(linear, entropies, tmp_path) as candidates:
        weights = [
            entry.parameters["weight"]
            for entry in learn(linear, candidates, settings).recipe.models
        ]
    assert all(0 <= weight <= 1 for weight in weights)
    assert {0.0, 1.0} & set(weights)


def test_the_same_seed_learns_the_same(recipe, entropies, tmp_path):
    linear = linear_recipe(recipe("task_arithmetic", MODELS))
    with Candidates(linear, entropies, tmp_path) as candidates:
        one, two, other = (
            learn(linear, candidates, Settings(steps=4, batch_size=4, seed=seed))
            for seed in (0, 0, 1)
        )
    assert one == two
    assert one.entropies != other.entropies


def test_labels_are_not_looked_at(recipe, tasks, entropies, tmp_path):
    labelled = questions_of(tasks, heads={"themes": "topics"})
    linear = linear_recipe(recipe("task_arithmetic", MODELS))
    found = []
    for asked in (labelled, entropies):
        with Candidates(linear, asked, tmp_path) as candidates:
            found.append(learn(linear, candidates, Settings(steps=3)))
    assert found[0] == found[1]


def test_other_methods_and_set_weights_are_refused(recipe):
    with pytest.raises(UsageError, match="is average: coefficients are learned for task_arith"):
        linear_recipe(recipe("average"))
    with pytest.raises(UsageError, match="weight: is what is learned, but the recipe sets it"):
        linear_recipe(recipe("ties", parameters={"weight": 0.5}))


def test_a_task_without_labels_to_choose_from_is_refused(recipe, entropies, tmp_path):
    asked = [replace(entropies[0], task=replace(entropies[0].task, kind="regression"))]
    linear = linear_recipe(recipe("task_arithmetic", ("sentiment", "topics")))
    with Candidates(linear, entropies[:1], tmp_path) as candidates:
        candidates.questions = tuple(asked)
        with pytest.raises(UsageError, match="mood: is a regression task"):
            learn(linear, candidates, Settings(steps=1))


@pytest.mark.parametrize(
    ("method", "own"), [("task_arithmetic", {"scale": 0.4}), ("ties", {"vote": "count"})]
)
def test_what_goes_with_learned_weights_is_not_changed_silently(recipe, method, own):
    (name,) = own
    with pytest.raises(UsageError) as caught:
        linear_recipe(recipe(method, parameters=own))
    (problem,) = caught.value.problems
    assert problem.where == name
    assert problem.what.startswith(f"is {own[name]}: learned weights go with ")


def test_a_merge_that_is_the_base_is_no_result(recipe, entropies, tmp_path):
    linear = linear_recipe(recipe("task_arithmetic"))
    nothing = Settings(steps=0, start=0.0)
    with (
        Candidates(linear, entropies, tmp_path) as candidates,
        pytest.raises(AlliageError, match=r"all learned weights came to 0: .* in fewer steps"),
    ):
        learn(linear, candidates, nothing)


@pytest.mark.parametrize(("method", "merges"), [("task_arithmetic", 0), ("ties", 3)])
def test_no_more_is_held_than_is_learned_with(recipe, entropies, tmp_path, monkeypatch, method,
                                              merges):  # fmt: skip
    """Of task arithmetic nothing is merged; of TIES one merge at a time is kept."""
    kept, made = [], Held.made

    def counted(held, plan):
        kept.append(len(held._made))
        return made(held, plan)

    monkeypatch.setattr(Held, "made", counted)
    linear = linear_recipe(recipe(method))
    with Candidates(linear, entropies, tmp_path) as candidates:
        merge = ada_merging._Merge(linear, candidates)
        assert kept == [0] * merges
        assert not candidates.held._inputs
        assert not candidates.held._made
        assert all(len(parts) == 3 for parts in merge._parts)
        candidates.score(recipe(method))
        assert candidates.held._inputs
    assert not candidates.held._inputs  # nor after its time
