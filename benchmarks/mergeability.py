"""Will two tuned models merge? Every pair merged in memory, and what foretells its losses."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Mapping
from itertools import dropwhile
from pathlib import Path

import pandas as pd

from benchmarks._merge_families import FAMILIES, SEEDS
from benchmarks._mergeability_crossed import crossed
from benchmarks._mergeability_learning import (
    FROM_ANSWERS,
    FROM_WEIGHTS,
    ceiling,
    check,
    chosen_elsewhere,
    constant,
    counted,
    form_of,
    learn,
    sizes,
)
from benchmarks._mergeability_losses import interval, losses, within
from benchmarks._mergeability_merges import UNLABELLED, measure
from benchmarks._mergeability_predictors import LAST_LAYERS, own, published
from benchmarks._real_data import missing
from benchmarks._report import report

SCORED = 800  # examples of each task
_LATE = ("survey: cosine", "survey: geodesic")  # printed of the last layers, too
_CROSSED = {
    "cka": f"{UNLABELLED} unlabelled: 1 − CKA of the two parents' features",
    "gradient": f"{UNLABELLED} unlabelled: distance of the two tasks' gradients at the base",
    "height": f"{UNLABELLED} labelled: log loss of the average over the mean of the two parents",
}
_ALONE = ("", "", "", "")  # nothing beside a forecast
_COMMAND = "mergeability --home HOME --learn"
_PREDICTORS_NOTE = (
    "Spearman's coefficient between a predictor and the loss δ(i, ·) of task i, the accuracy of "
    "its own model less that of the merge, over the seven partners of i: mean (standard "
    "deviation) over eight tasks and the seeds of tuning. All 28 pairs, merged with the methods' "
    f"default settings, scored on up to {SCORED} examples of the test split (validation where "
    f"there is none); {UNLABELLED} others of it are the unlabelled ones. Signs are turned so that "
    "a positive coefficient is what the literature expects. survey: means over modules, as "
    "`alliage compare` has them, 16 directions of dense updates; planned "
    "merge: the displacement of each model, as `alliage forecast` has it. One half for the "
    "other: how far the losses themselves agree when measured on halves of the test, at some 330 "
    "examples each. What is seen of the scored inputs themselves shares their chance with them. "
    "Fosse 2024 (hal-04622988), table 3, RoBERTa, LoRA, averaged factors: queries L2 0.45, cosine "
    "0.65, geodesic 0.65; values 0.48, 0.68, 0.64; values of the last layers cosine 0.74, geodesic "
    "0.77. Here, on the same kind of merge (last column), cosine and geodesic reach less, L2 "
    "nothing, late layers no more than all, SAR and STI have the other sign, and the share of the "
    "update that the merge loses does better than each of them."
)
_FORECAST_NOTE = (
    "Each forecast is by a model that has seen no merge with the task, as target or as partner; "
    "square brackets: 95 % bootstrap intervals over tasks, seeds together. From weights: one "
    "predictor for each way of tuning (LoRA: share of the update that the merge loses, all "
    "matrices; in full: values), chosen on these data. From answers: one model for all families "
    "and methods, from the accuracy lost if the parent's probabilities are right and the total "
    "variation. Survey, planned merge: the predictor of all kinds of modules and layers with the "
    "largest coefficient on the other tasks (the task may be a partner there), most often this "
    "one, and its coefficient on the task left out. Mean error of a constant: of the mean of all "
    "merges without the task. Noise ceiling: the coefficient that the truth itself would reach, "
    "from one half of the test for the other, by Spearman and Brown, square root. The aims, 0.77 "
    "from weights, 0.95 from answers and two points of error, are missed: read the ceiling beside "
    "the coefficients. Intervals come from leaving tasks out; what they hold is measured, no "
    "guarantee. Over all pairs weights say nothing: what "
    "they forecast is the mean of the other tasks' losses, which falls where the task's own are "
    "large. In the last row but one, losses are measured on half as many examples, which hides "
    "what more unlabelled ones bring (table above: share changed, averaged factors, 0.52 by "
    f"{UNLABELLED}, 0.73 by up to {SCORED // 2}); in the last, the inputs share their chance with "
    "the losses measured on them. "
    "Tried on some of these merges without gain: an isotonic correction of the "
    "regression (error 2.5 points before, 3.2 after, on one family), trees in place of a line, "
    "probabilities softened or averaged with the merge's, weights beside answers, and answers to "
    "random tokens in place of texts."
)


def main() -> None:
    """Measure what is not yet measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks mergeability")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append")
    parser.add_argument(
        "--home", type=Path, required=True, help="Where merge_quality's models lie."
    )
    parser.add_argument("--learn", action="store_true", help="Renew what forecasts go by.")
    parser.add_argument("--no-measuring", action="store_true", help="Only what is there.")
    parser.add_argument("--answers", type=Path, help="Where to keep what models answer.")
    options = parser.parse_args(list(dropwhile(lambda word: word[0] != "-", sys.argv[1:])))
    asked = options.family or ["images", "texts-lora", "texts-full"]
    if reason := missing({task for name in asked for task in FAMILIES[name].tasks}):
        print(f"mergeability: skipped, {reason}.")
        return
    kept = options.answers or options.home / "mergeability"
    seeds = options.seed or list(SEEDS)
    if not options.no_measuring:
        for first, seed, name in itertools.product((True, False), seeds, asked):
            started = time.perf_counter()
            out = kept / f"{name}-{seed}"
            measure(name, FAMILIES[name], options.home / name, out, seed, SCORED, first=first)
            print(f"{name}-{seed}: {(time.perf_counter() - started) / 60:.1f} min", flush=True)
    table = pd.concat(
        [
            losses(kept / f"{name}-{seed}", name, seed)
            for name, seed in itertools.product(asked, seeds)
            if (kept / f"{name}-{seed}").is_dir()
        ],
        ignore_index=True,
    )
    table.to_parquet(kept / "losses.parquet")
    weights = _with_weights(table, options.home, kept)
    if options.learn:
        sizes(options.home)
        learn(table, weights).write()
    _report(table, weights, options.home, kept)


def _with_weights(
    table: pd.DataFrame, home: Path, kept: Path
) -> dict[tuple[str, str], pd.DataFrame]:
    """Losses with the predictors from weights beside them, by family and method."""
    found = {}
    for (name, method), rows in table.groupby(["family", "method"]):
        parts = []
        for seed, some in rows.groupby("seed"):
            planned = "factor_average" if method == "factor_average" else "average"
            file = kept / f"weights-{name}-{seed}-{planned}.parquet"
            sets = [tuple(models.split("+")) for models in some["models"].unique()]
            stored = pd.read_parquet(file) if file.exists() else None
            if stored is None or not set(some["models"]) <= set(stored["models"]):
                stored = own(FAMILIES[name], home / name, seed, planned, sets)
                stored.to_parquet(file)
            parts.append(some.merge(stored, on=["models", "task"]))
        found[name, method] = pd.concat(parts, ignore_index=True)
    return found


def _report(
    table: pd.DataFrame, weights: Mapping[tuple[str, str], pd.DataFrame], home: Path, kept: Path
) -> None:
    """The two sections: every predictor by itself, and the forecast on tasks left out."""
    pairs = {key: rows[rows["size"] == 2] for key, rows in weights.items()}
    pairs = {key: rows for key, rows in pairs.items() if rows["seed"].nunique() > 1}
    columns = {key: f"{key[0]}, {key[1]}" for key in sorted(pairs)}
    found: dict[str, dict[tuple[str, str], pd.Series]] = {}
    for key, rows in pairs.items():
        for name, series in _of_survey(rows, key[0], home, kept).items():
            found.setdefault(f"survey: {name}", {})[key] = series
        for name in (column for column in rows if "." in column and "size" not in column):
            found.setdefault(f"planned merge: {name}", {})[key] = within(rows, name)
        for name in ("changed", "expected", "variation", "divergence", "disentanglement"):
            found.setdefault(f"{UNLABELLED} unlabelled: {name}", {})[key] = within(rows, name)
        beside = _crossed(rows, key[0], home, kept)
        for name, words in _CROSSED.items():
            found.setdefault(words, {})[key] = within(beside, name)
        halves = rows.assign(loss=rows["second"])
        for name in ("changed", "expected", "divergence"):
            words = f"half of the test without labels, for the other half: {name}"
            found.setdefault(words, {})[key] = within(halves, f"half_{name}")
            words = f"all test inputs without labels, for themselves: {name}"
            found.setdefault(words, {})[key] = within(rows, f"all_{name}")
        found.setdefault("one half of the test for the other", {})[key] = within(halves, "first")
    printed = [
        {"predictor": name, **{
            title: _spread(by.get(key))
            for key, title in columns.items()
        }}
        for name, by in sorted(found.items(), key=lambda item: "survey" not in item[0])
        if not name.endswith(f"last {LAST_LAYERS}") or name.startswith(_LATE)
    ]  # fmt: skip
    report(
        "mergeability", "What foretells the losses of a merge", printed, command=_COMMAND,
        note=_PREDICTORS_NOTE,
        details={
            "losses": {f"{f}, {m}": float(r["loss"].mean()) for (f, m), r in pairs.items()},
            "means": {
                name: {columns[key]: float(values.mean()) for key, values in by.items()}
                for name, by in found.items()
            },
        },
    )  # fmt: skip
    report(
        "mergeability_forecast", "The forecast on tasks that it has not seen",
        _forecast_rows(table, pairs, found), command=_COMMAND,
        note=f"{_FORECAST_NOTE} Merges by family, method and size of the set: {_counts(table)}.",
    )  # fmt: skip


def _counts(table: pd.DataFrame) -> str:
    return "; ".join(
        f"{family}, {method}: " + ", ".join(f"{count} of {size}" for size, count in by.items())
        for family, methods in counted(table).items()
        for method, by in methods.items()
    )


def _crossed(rows: pd.DataFrame, name: str, home: Path, kept: Path) -> pd.DataFrame:
    parts = []
    for seed, some in rows.groupby("seed"):
        file = kept / f"crossed-{name}-{seed}.parquet"
        if not file.exists():
            answers = kept / f"{name}-{seed}"
            crossed(FAMILIES[name], home / name, answers, int(str(seed))).to_parquet(file)
        parts.append(some.merge(pd.read_parquet(file), on=["task", "other"]))
    return pd.concat(parts)


def _of_survey(rows: pd.DataFrame, name: str, home: Path, kept: Path) -> dict[str, pd.Series]:
    parts = []
    for seed, some in rows.groupby("seed"):
        file = kept / f"survey-{name}-{seed}.parquet"
        if not file.exists():
            published(FAMILIES[name], home / name, int(str(seed)), form_of(name)).to_parquet(file)
        values = pd.read_parquet(file).pivot_table(
            index=["task", "other"], columns="predictor", values="value"
        )
        parts.append(some.merge(values.reset_index(), on=["task", "other"]))
    joined = pd.concat(parts)
    names = [column for column in joined if column not in rows and "," in str(column)]
    return {str(each): within(joined, str(each)) for each in names}


def _forecast_rows(
    table: pd.DataFrame,
    pairs: Mapping[tuple[str, str], pd.DataFrame],
    found: Mapping[str, Mapping[tuple[str, str], pd.Series]],
) -> list[dict[str, str]]:
    checked = []
    for key, rows in sorted(pairs.items()):
        _, values = check(rows, FROM_WEIGHTS[form_of(key[0])], partners=True)
        shown = {}
        for kind in ("survey: ", "planned merge: "):
            best, each = chosen_elsewhere(
                {name: by[key] for name, by in found.items() if name.startswith(kind) and key in by}
            )
            shown[kind] = f"{best.removeprefix(kind)} {each.mean():.2f}"
        beside = (*shown.values(), f"{constant(rows):.1f}", f"{ceiling(rows):.2f}")
        checked.append((f"weights: {key[0]}, {key[1]}", values, beside))
    for form, method in sorted({(form_of(family), method) for family, method in pairs}):
        families = [key for key in pairs if (form_of(key[0]), key[1]) == (form, method)]
        if len(families) > 1:
            rows = pd.concat([pairs[key] for key in families])
            _, values = check(rows, FROM_WEIGHTS[form], partners=True)
            beside = ("", "", f"{constant(rows):.1f}", f"{ceiling(rows):.2f}")
            checked.append((f"weights, as shipped: {form}, {method}", values, beside))
    together, values = check(table, FROM_ANSWERS, partners=False)
    checked.append((f"{UNLABELLED} unlabelled examples: all merges", values, _ALONE))
    for (name, method), rows in together[together["size"] == 2].groupby(["family", "method"]):
        each, errors = within(rows, "forecast"), rows.set_index("task")["error"]
        values = {
            "spearman": each.mean(), "spread": each.std(), "interval": interval(each),
            "pooled": rows["forecast"].corr(rows["loss"], method="spearman"),
            "error": errors.mean(), "error_interval": interval(errors), "held": float("nan"),
            "width": float("nan"),
        }  # fmt: skip
        checked.append(
            (f"... of them {name}, {method}", values, ("", "", "", f"{ceiling(rows):.2f}"))
        )
    halves = [f"half_{name}" for name in FROM_ANSWERS]
    values = check(table.assign(loss=table["second"]), halves, partners=False)[1]
    checked.append(
        (f"up to {SCORED // 2} unlabelled, for the other half of the test", values, _ALONE)
    )
    longer = [f"all_{name}" for name in FROM_ANSWERS]
    values = check(table, longer, partners=False)[1]
    checked.append(("all test inputs without labels, for themselves", values, _ALONE))
    return [
        {
            "forecast": title,
            "Spearman over a task's partners": _with(values["spearman"], values["interval"], 2),
            "spread": f"{values['spread']:.2f}",
            "over all pairs": f"{values['pooled']:.2f}",
            "mean error, points": _with(values["error"], values["error_interval"], 1),
            "within the interval": "" if math.isnan(values["held"]) else f"{values['held']:.0%}",
            "its half width": "" if math.isnan(values["width"]) else f"{values['width']:.1f}",
            "survey, chosen on the other tasks": beside[0],
            "planned merge, chosen on the other tasks": beside[1],
            "mean error of a constant": beside[2],
            "noise ceiling": beside[3],
        }
        for title, values, beside in checked
    ]


def _spread(values: pd.Series | None) -> str:
    if values is None or values.empty:
        return ""
    return f"{values.mean():.2f} ({values.std():.2f})"


def _with(value: float, ends: tuple[float, float], digits: int) -> str:
    return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
