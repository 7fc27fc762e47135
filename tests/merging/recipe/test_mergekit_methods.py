"""mergekit's methods by their own names and parameters, and what they are here."""

import pytest

from tests.merging.recipe.test_mergekit import TIES, layer, messages, read


def test_dare_has_mergekits_rescaling():
    dare = TIES.replace("ties", "dare_ties").replace("normalize: true", "rescale: no")
    assert read(dare).arguments_for(layer(0, "mlp.up"), 0.0)["rescale"] == "none"
    dare = dare.replace("rescale: no", "lambda: 1")
    assert read(dare).arguments_for(layer(0, "mlp.up"), 0.0)["rescale"] == "l1"
    linear = dare.replace("dare_ties", "dare_linear")
    assert read(linear).arguments_for(layer(0, "mlp.up"), 0.0)["rescale"] == "l1"


SPARSE = """
merge_method: della
base_model: b
models: [{model: b}, {model: x, parameters: {epsilon: 0.1}}, {model: y}]
parameters: {weight: 1, density: 0.4}
"""


def test_della_is_ours_with_elected_signs_and_della_linear_ours_without():
    recipe = read(SPARSE)
    arguments = recipe.arguments_for("w", 0.0)
    assert (recipe.method, recipe.refs) == ("della", ("x", "y"))
    assert (arguments["epsilon"], arguments["density"]) == ([0.1, 0.15], [0.4, 0.4])
    assert (arguments["combine"], arguments["rescale"]) == ("signed_mean", "l1")
    linear = read(SPARSE.replace("della", "della_linear")).arguments_for("w", 0.0)
    assert (linear["rescale"], "combine" in linear) == ("l1", False)
    found = messages(SPARSE.replace("della", "della_linear").replace("1,", "1, normalize: true,"))
    assert "parameters.normalize: only false is supported for della_linear." in found


def test_breadcrumbs_has_mergekits_outliers():
    recipe = read(SPARSE.replace("della", "breadcrumbs_ties").replace("epsilon", "gamma"))
    arguments = recipe.arguments_for("w", 0.0)
    assert (arguments["gamma"], arguments["combine"]) == ([0.1, 0.01], "sum")
    found = messages(SPARSE.replace("della", "breadcrumbs").replace("1,", "1, rescale: true,"))
    assert "breadcrumbs has no parameter 'epsilon'" in found
    assert "parameters.rescale: only false is supported for breadcrumbs." in found


PLAINLY = "base_model: b\nmodels: [{model: x}, {model: b}]\n"


@pytest.mark.parametrize(
    ("text", "method", "refs", "arguments"),
    [
        (
            "merge_method: sce\nparameters: {select_topk: 0.2, int8_mask: true}",
            "sce", ("x",), {"density": 0.2, "floor": 1e-6},
        ),
        ("merge_method: ram", "ram", ("x",), {"epsilon": 1e-5}),
        (
            "merge_method: ramplus_tl\nparameters: {alpha: 0.5}",
            "ram_plus", ("x",), {"epsilon": 1e-5, "r": 0.1, "alpha": 0.5, "over": "tensor"},
        ),
        ("merge_method: nearswap\nparameters: {t: 0.1}", "nearswap", ("b", "x"), {"t": 0.1}),
        ("merge_method: arcee_fusion", "arcee_fusion", ("b", "x"), {}),
    ],
)  # fmt: skip
def test_what_chooses_entries(text, method, refs, arguments):
    recipe = read(PLAINLY + text)
    assert (recipe.method, recipe.refs) == (method, refs)
    assert recipe.arguments_for("w", 0.0) == arguments


def test_nearswap_needs_its_step():
    assert "nearswap needs t for every tensor." in messages(PLAINLY + "merge_method: nearswap")


@pytest.mark.parametrize(
    ("text", "method", "models", "settings"),
    [
        (
            "merge_method: nuslerp\nparameters: {weight: 2, nuslerp_flatten: false}\n"
            "models: [{model: x}, {model: y, parameters: {weight: 1}}]",
            "nuslerp",
            ["x", "y"],
            {"weight": [2, 1], "flatten": False, "columns": False},
        ),
        (
            "merge_method: nuslerp\nbase_model: b\nparameters: {weight: 1, nuslerp_row_wise: true}"
            "\nmodels: [{model: x}, {model: b}, {model: y}]",
            "nuslerp_delta",
            ["x", "y"],
            {"weight": [1, 1], "flatten": True, "columns": True},
        ),
        (
            "merge_method: multislerp\nparameters: {weight: 1, normalize_weights: false, eps: 1e-9}"
            "\nmodels: [{model: x}, {model: y}]",
            "multislerp",
            ["x", "y"],
            {"weight": [1, 1], "normalize": False},
        ),
        (
            "merge_method: multislerp\nbase_model: b\nparameters: {weight: 1}\n"
            "models: [{model: x}]",
            "multislerp_delta",
            ["x"],
            {"weight": [1], "normalize": True},
        ),
        (
            "merge_method: karcher\nparameters: {max_iter: 5, tol: 1e-3}\nmodels: [{model: x}]",
            "karcher",
            ["x"],
            {"iterations": 5, "tolerance": 1e-3, "weight": [1.0]},
        ),
        (  # a base is one of the models
            "merge_method: karcher\nbase_model: b\nmodels: [{model: x}]",
            "karcher",
            ["x", "b"],
            {"iterations": 10, "tolerance": 1e-5},
        ),
        (
            "merge_method: model_stock\nbase_model: b\nparameters: {filter_wise: true}\n"
            "models: [{model: x}, {model: y}]",
            "model_stock",
            ["x", "y"],
            {"filter_wise": True, "bounded": False},
        ),
    ],
)
def test_methods_on_spheres_and_model_stock(text, method, models, settings):
    recipe = read(text)
    assert recipe.method == method
    assert [entry.model for entry in recipe.models] == models
    arguments = recipe.arguments_for("w", 0.0)
    assert {key: arguments[key] for key in settings} == settings


def test_without_a_base_slices_of_nuslerp_may_stack_any_layers():
    recipe = read(
        "merge_method: nuslerp\nparameters: {weight: 1}\nslices: [{sources: ["
        "{model: x, layer_range: [0, 4]}, {model: y, layer_range: [4, 8]}]}]"
    )
    assert recipe.method == "nuslerp"
