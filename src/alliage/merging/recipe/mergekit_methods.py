"""mergekit's methods and parameters (0.1.5), and what they are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alliage.merging.recipe.parameters import is_rules

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MergekitParameter:
    """One of mergekit's parameters.

    Attributes:
        ours: the name of what it becomes; empty where nothing depends on it.
        per_model: whether it may differ between models.
        values: where it is true or false: what these become. Numbers otherwise.
        only: the one value that our method can follow.
        required: whether mergekit has no default for it.
    """

    ours: str
    per_model: bool = False
    values: Mapping[bool, Any] | None = None
    only: bool | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class MergekitMethod:
    """One of mergekit's methods.

    Attributes:
        ours: the name of the method here.
        parameters: those that it has there.
        needs_base: whether it needs base_model, and the base among its models.
        drops_base: whether the base is none of the models that we merge.
        with_base: the name of the method here where there is a base, if it is another.
        least: how many models it needs, the base included.
    """

    ours: str
    parameters: Mapping[str, MergekitParameter]
    needs_base: bool = False
    drops_base: bool = False
    with_base: str = ""
    least: int = 1


_AS_IT_IS = {True: True, False: False}
_COMBINE = MergekitParameter("combine", values={True: "signed_mean", False: "sum"})
_RESCALE = MergekitParameter("rescale", values={True: "l1", False: "none"})
_NEVER = MergekitParameter("", values=_AS_IT_IS, only=False)
_WEIGHT = MergekitParameter("weight", per_model=True, required=True)
_EPSILON = MergekitParameter("epsilon", per_model=True)
_GAMMA = MergekitParameter("gamma", per_model=True)
_INT8 = MergekitParameter("", values=_AS_IT_IS)  # takes less memory, to the same result
_SUMS = {
    "weight": _WEIGHT,
    "density": MergekitParameter("density", per_model=True),
    "lambda": MergekitParameter("scale"),
    "int8_mask": _INT8,
}

METHODS: Mapping[str, MergekitMethod] = {
    "linear": MergekitMethod(
        "average",
        {"weight": _WEIGHT, "normalize": MergekitParameter("normalize", values=_AS_IT_IS)},
    ),
    "task_arithmetic": MergekitMethod(
        "task_arithmetic",
        # Nothing is dropped, so that there is no density, and nothing to rescale.
        {
            **_SUMS,
            "density": MergekitParameter("", per_model=True),
            "rescale": MergekitParameter("", values=_AS_IT_IS),
            "normalize": _NEVER,
        },
        needs_base=True,
        drops_base=True,
    ),
    "ties": MergekitMethod(
        "ties",
        {**_SUMS, "normalize": _COMBINE, "rescale": _NEVER},
        needs_base=True,
        drops_base=True,
    ),
    "dare_ties": MergekitMethod(
        "dare_ties",
        {**_SUMS, "normalize": _COMBINE, "rescale": _RESCALE},
        needs_base=True,
        drops_base=True,
    ),
    "dare_linear": MergekitMethod(
        "dare_linear",
        {**_SUMS, "normalize": _NEVER, "rescale": _RESCALE},
        needs_base=True,
        drops_base=True,
    ),
    "della": MergekitMethod(
        "della",
        {**_SUMS, "epsilon": _EPSILON, "normalize": _COMBINE, "rescale": _RESCALE},
        needs_base=True,
        drops_base=True,
    ),
    "della_linear": MergekitMethod(
        "della_linear",
        {**_SUMS, "epsilon": _EPSILON, "normalize": _NEVER, "rescale": _RESCALE},
        needs_base=True,
        drops_base=True,
    ),
    "breadcrumbs": MergekitMethod(
        "breadcrumbs",
        {**_SUMS, "gamma": _GAMMA, "normalize": _NEVER, "rescale": _NEVER},
        needs_base=True,
        drops_base=True,
    ),
    "breadcrumbs_ties": MergekitMethod(
        "breadcrumbs_ties",
        {**_SUMS, "gamma": _GAMMA, "normalize": _COMBINE, "rescale": _NEVER},
        needs_base=True,
        drops_base=True,
    ),
    "sce": MergekitMethod(
        "sce",
        {"select_topk": MergekitParameter("density"), "int8_mask": _INT8},
        needs_base=True,
        drops_base=True,
    ),
    "ram": MergekitMethod(
        "ram", {"epsilon": MergekitParameter("epsilon")}, needs_base=True, drops_base=True
    ),
    "ramplus_tl": MergekitMethod(
        "ram_plus",
        {name: MergekitParameter(name) for name in ("epsilon", "r", "alpha")},
        needs_base=True,
        drops_base=True,
    ),
    "nearswap": MergekitMethod(
        "nearswap", {"t": MergekitParameter("t", required=True)}, needs_base=True
    ),
    "nuslerp": MergekitMethod(
        "nuslerp",
        {
            "weight": _WEIGHT,
            "nuslerp_flatten": MergekitParameter("flatten", values=_AS_IT_IS),
            # Their rows are vectors along the first dimension.
            "nuslerp_row_wise": MergekitParameter("columns", values=_AS_IT_IS),
        },
        drops_base=True,
        with_base="nuslerp_delta",
    ),
    "multislerp": MergekitMethod(
        "multislerp",
        {
            "weight": _WEIGHT,
            "normalize_weights": MergekitParameter("normalize", values=_AS_IT_IS),
            "eps": MergekitParameter(""),  # keeps divisors from zero
        },
        drops_base=True,
        with_base="multislerp_delta",
    ),
    "karcher": MergekitMethod(
        "karcher",
        {"max_iter": MergekitParameter("iterations"), "tol": MergekitParameter("tolerance")},
    ),
    "model_stock": MergekitMethod(
        "model_stock",
        {"filter_wise": MergekitParameter("filter_wise", values=_AS_IT_IS)},
        needs_base=True,
        drops_base=True,
        least=3,
    ),
    "arcee_fusion": MergekitMethod("arcee_fusion", {}, needs_base=True),
    "slerp": MergekitMethod("slerp", {"t": MergekitParameter("t", required=True)}, needs_base=True),
    "passthrough": MergekitMethod(
        "passthrough", {"scale": MergekitParameter("scale", per_model=True)}
    ),
}

_TRUE = ("true", "t", "yes", "y", "on", "1")
_FALSE = ("false", "f", "no", "n", "off", "0")


def converted(value: Any, parameter: MergekitParameter) -> Any:
    """A value in one of the three forms, as ours. Raises ValueError where it is not boolean."""
    if not isinstance(value, list):
        return _boolean(value, parameter.values) if parameter.values else _number(value)
    made = []
    for each in value:
        if not isinstance(each, dict):
            made.append(converted(each, parameter))
            continue
        rule = dict(each)
        if "value" in rule:
            rule["value"] = converted(rule["value"], parameter)
        if rule.get("filter", "") in (None, "", "*"):
            rule.pop("filter", None)
        made.append(rule)
        if "filter" not in rule:
            break  # the rules after it never apply
    return made


def _number(value: Any) -> Any:
    """Text that is a number as one, and true as 1: so mergekit takes them."""
    try:
        return float(value) if isinstance(value, str | bool) else value
    except ValueError:
        return value


def _boolean(value: Any, values: Mapping[bool, Any]) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(value)
    word = f"{value:g}" if isinstance(value, float) else str(value).lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(value)
    return values[word in _TRUE]


def plain_values(value: Any) -> list[Any]:
    """Every plain value in one of the three forms."""
    if isinstance(value, list):
        return [plain for each in value for plain in plain_values(each)]
    return plain_values(value.get("value")) if isinstance(value, dict) else [value]


def speaks_of_all(value: Any) -> bool:
    """Whether a value is given, and for every tensor."""
    if value is None or not is_rules(value):
        return value is not None
    return any("filter" not in rule for rule in value if isinstance(rule, dict))


def over(inner: Settings, outer: Settings) -> Settings:
    """Settings of a module and, where its rules do not speak of a tensor, the recipe's."""
    merged = {**outer, **inner}
    for name in inner.keys() & outer.keys():
        if not speaks_of_all(inner[name]):
            rest = outer[name] if is_rules(outer[name]) else [{"value": outer[name]}]
            merged[name] = inner[name] + rest
    return merged
