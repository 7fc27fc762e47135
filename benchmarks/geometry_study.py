"""The tables and figures of the two documents on task vectors, on models tuned here.

    python -m benchmarks geometry_study --home FOLDER --answers FOLDER
    python -m benchmarks geometry_study --family texts-lora --home FOLDER --figures FOLDER

Distances and their rank correlation with what merging costs (Fosse 2024, hal-04622988: figures 2 to
4, table 3), projected spectra (Fosse 2025, a poster: both tables, the map, who lies in whom).
Families are those of merge_quality, tuned on the spot or found in the home; what merging costs was
measured by mergeability, whose answers are read.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks._merge_families import FAMILIES, SEEDS, Family, prepare
from benchmarks._mergeability_merges import Merge, methods
from benchmarks._real_data import missing
from benchmarks._report import report

if TYPE_CHECKING:
    from alliage.geometry import Survey

# Metric -> whether more of it means nearer.
METRICS = {
    "l2": False, "cosine": False, "geodesic": False, "angle_sum": False, "core_energy": True,
    "rec": True,
}  # fmt: skip
KINDS = {"queries": ("query",), "values": ("value",), "both": ("query", "value")}
LORA = "texts-lora"
DIGITS = {"l2": 2, "cosine": 3, "geodesic": 2}


class Loss(NamedTuple):
    """What pairs lose.

    Attributes:
        family: its name.
        method: of the merges.
        seed: of the models.
        values: [n, n], points of accuracy that task i loses when its model is merged with j's.
    """

    family: str
    method: str
    seed: int
    values: np.ndarray


def main() -> None:
    """Survey the families asked for and write their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks geometry_study")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--home", type=Path, help="Keep models there, and use those that are.")
    parser.add_argument("--answers", type=Path, help="What mergeability kept; else in the home.")
    parser.add_argument("--figures", type=Path, help="Draw all pictures into this folder.")
    options = parser.parse_args(list(dropwhile(lambda word: word[0] != "-", sys.argv[1:])))
    asked = options.family or [LORA, "texts-full", "images"]
    if reason := missing({task for name in asked for task in FAMILIES[name].tasks}):
        print(f"geometry_study: skipped, {reason}.")
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(options.home or folder).absolute()
        answers = options.answers or home / "mergeability"
        surveys = {}
        for name in asked:
            surveys[name] = [survey(FAMILIES[name], home / name, seed) for seed in SEEDS]
            print(f"{name}: surveyed.", flush=True)
            if options.figures:
                draw(FAMILIES[name], home / name, surveys[name][0], options.figures / name)
        command = "geometry_study" + "".join(f" --family {name}" for name in asked)
        report_distances(surveys, command)
        report_correlations(surveys, answers, command)
        if LORA in asked:
            report_factors(FAMILIES[LORA], home / LORA, surveys[LORA], answers, command)
            report_spectra(FAMILIES[LORA], home / LORA, surveys[LORA], command)


def survey(family: Family, home: Path, seed: int, **options: Any) -> Survey:
    """The models of one seed, queries and values, named by their tasks."""
    import alliage

    home.mkdir(parents=True, exist_ok=True)
    if not all((home / f"{task}-{each}").exists() for task in family.tasks for each in SEEDS):
        prepare(family, home, known=False)
    models = {task: home / f"{task}-{seed}" for task in family.tasks}
    wanted = [*METRICS, "spectrum_l1"]
    settings = {"metrics": wanted, "modules": "q,v", "spectra": True, **options}
    return alliage.compare(home / family.base, models, **settings)


def means(one: Survey, metric: str, kinds: Iterable[str], last: int | None = None) -> np.ndarray:
    """T_d [n, n]: the mean over the modules of some kinds, in the last layers or in all."""
    values = one[metric]
    layers = values["layer"].values
    chosen = np.isin(values["kind"].values, list(kinds))
    if last is not None:
        chosen &= layers > layers.max() - last
    return np.asarray(values[:, :, chosen].mean("module"))


# -- tables of the first document


def report_distances(surveys: Mapping[str, Sequence[Survey]], command: str) -> None:
    """T_d of each pair, mean and range over seeds."""
    for name, runs in surveys.items():
        names, rows = runs[0].names, []
        tables = {
            (metric, words): np.stack([means(one, metric, KINDS[words]) for one in runs])
            for metric, words in itertools.product(DIGITS, ("queries", "values"))
        }
        for i, j in itertools.combinations(range(len(names)), 2):
            row = {"pair": f"{names[i]}, {names[j]}"}
            for (metric, words), values in tables.items():
                digits = DIGITS[metric]
                each = values[:, i, j]
                row[f"{metric}, {words}"] = (
                    f"{each.mean():.{digits}f} ({each.min():.{digits}f}–{each.max():.{digits}f})"
                )
            rows.append(row)
        first = runs[0]
        chance = float(first.null["geodesic"].isel(task=0, other=1).mean())
        by = "all directions" if name == LORA else "the leading directions that stand for each"
        title = FAMILIES[name].title
        layers = len({int(layer) for layer in first["l2"]["layer"].values})
        note = (
            f"{title[0].upper()}{title[1:]}: T_d, means over {layers} layers; mean of "
            f"{len(runs)} seeds and their range. Geodesic in radians, of {by}; random subspaces "
            f"are {chance:.2f} apart, random updates have a cosine distance of 1."
        )
        report(
            f"geometry_distances-{name}",
            f"Distances between task vectors: {title}",
            rows, note=note, command=command,
        )  # fmt: skip


def report_correlations(
    surveys: Mapping[str, Sequence[Survey]], answers: Path, command: str
) -> None:
    """Table 3: Spearman's coefficient over the partners of each task, mean (std) over tasks."""
    rows, details, best = [], {}, {}
    for name, runs in surveys.items():
        for method in methods(name, first=True):
            losses = [loss for loss in _losses(name, method, answers) if loss is not None]
            if not losses:
                continue
            layers = runs[0]["l2"]["layer"].values.max() + 1
            spans = {"all layers": None, f"last {layers // 2}": int(layers // 2), "last": 1}
            for words, (span, last) in itertools.product(KINDS, spans.items()):
                row = {
                    "models": FAMILIES[name].title, "merge": method.replace("_", " "),
                    "modules": words, "layers": span,
                }  # fmt: skip
                for metric, nearer in METRICS.items():
                    found = np.concatenate(
                        [
                            correlations(
                                loss.values, means(runs[loss.seed], metric, KINDS[words], last)
                            )
                            * (-1 if nearer else 1)
                            for loss in losses
                        ]
                    )
                    row[metric] = f"{np.nanmean(found):.2f} ({np.nanstd(found):.2f})"
                    details[f"{name}, {method}, {words}, {span}, {metric}"] = found.tolist()
                    top = best.get((name, method), (-2.0, ""))
                    said = f"{metric} on {words}, {span}"
                    best[name, method] = max(top, (float(np.nanmean(found)), said))
                rows.append(row)
            mean = np.mean([np.nanmean(loss.values) for loss in losses])
            details[f"{name}, {method}"] = {
                "seeds": [loss.seed for loss in losses], "mean loss in points": float(mean)
            }  # fmt: skip
    if not rows:
        print(f"geometry_study: no answers of pairs in {answers}.")
        return
    highest = "; ".join(
        f"{FAMILIES[name].title}, {method.replace('_', ' ')}: {value:.2f} by {said}, "
        f"{details[f'{name}, {method}']['mean loss in points']:.1f} points lost on average, seeds "
        + ", ".join(map(str, details[f"{name}, {method}"]["seeds"]))
        for (name, method), (value, said) in best.items()
    )
    note = (
        "Fosse 2024, table 3: Spearman's coefficient between the points of accuracy that task i "
        "loses when its model is merged with each other model, and their distances; mean "
        "(standard deviation) over tasks and seeds. Of core energy and REC the negative counts: "
        "they are large where models are near. Each coefficient is of 7 partners. The highest of "
        f"each: {highest}. Other metrics stand in the section mergeability, “What foretells the "
        "losses of a merge”. The document has, for RoBERTa with LoRA, averaged factors "
        "and ten tasks, on values: L2 0.48 (0.23), cosine 0.68 (0.21), geodesic 0.64 (0.19), and "
        "in late layers cosine 0.74 (0.20), geodesic 0.77 (0.14)."
    )
    report(
        "geometry_correlations", "Distances and what merging costs", rows,
        note=note, details={"coefficients": details}, command=command,
    )  # fmt: skip


def report_factors(
    family: Family, home: Path, runs: Sequence[Survey], answers: Path, command: str
) -> None:
    """Figure 4: the factors A and B alone, beside their product."""
    from alliage.data import load_task

    labels = [len(load_task(home / ref).labels) for ref in family.tasks.values()]
    upper = np.triu_indices(len(labels), 1)
    alike = np.equal.outer(labels, labels)[upper]
    losses = [loss for loss in _losses(LORA, "factor_average", answers) if loss is not None]
    rows = []
    for of in ("A", "B", "update"):
        options = {"metrics": ["cosine", "geodesic"], "of": of, "spectra": False}
        several = runs if of == "update" else [survey(family, home, s, **options) for s in SEEDS]
        row = {"of": {"update": "BA"}.get(of, of)}
        for metric in ("cosine", "geodesic"):
            pairs = np.stack([means(one, metric, KINDS["both"])[upper] for one in several])
            for words, chosen in (("as many labels", alike), ("others", ~alike)):
                each = pairs[:, chosen]
                row[f"{metric}, {words}"] = f"{each.mean():.2f} ({each.min():.2f}–{each.max():.2f})"
            found = [
                correlations(loss.values, means(several[loss.seed], metric, KINDS["both"]))
                for loss in losses
            ]
            if found:
                row[f"{metric}, with loss"] = f"{np.nanmean(found):.2f} ({np.nanstd(found):.2f})"
        rows.append(row)
    lost = []
    for method in methods(LORA, first=True):
        measured = [loss for loss in _losses(LORA, method, answers) if loss is not None]
        points = [(loss.values + loss.values.T)[upper] / 2 for loss in measured]
        if points:
            near, far = (np.mean([each[chosen] for each in points]) for chosen in (alike, ~alike))
            lost.append(f"{near:.1f} and {far:.1f} by {method.replace('_', ' ')}")
    report(
        "geometry_factors", "The factors of LoRA alone", rows,
        note=(
            "Fosse 2024, figure 4: distances of A alone and of B alone, queries and values, all "
            f"layers, {len(runs)} seeds; mean and range over pairs of tasks with as many labels "
            f"({int(alike.sum())} pairs) and of all others. With loss: Spearman's coefficient as "
            "in the table above, for averaged factors. Points lost in pairs of as many labels and "
            f"in others: {', '.join(lost)}."
        ),
        command=command,
    )  # fmt: skip


def correlations(loss: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Spearman's coefficient of each row, without the diagonal; NaN where all losses are equal."""
    from scipy.stats import rankdata

    found = []
    for i in range(len(loss)):
        ranks = [rankdata(np.delete(values[i], i)) for values in (loss, distance)]
        alike = any(np.ptp(one) == 0 for one in ranks)
        found.append(np.nan if alike else np.corrcoef(ranks)[0, 1])
    return np.array(found)


def _losses(name: str, method: str, answers: Path) -> Iterator[Loss | None]:
    """Losses of the seeds whose pairs were all measured."""
    tasks = list(FAMILIES[name].tasks)
    for seed in SEEDS:
        home = answers / f"{name}-{seed}"
        pairs = list(itertools.combinations(range(len(tasks)), 2))
        files = {pair: home / Merge(method, tuple(tasks[k] for k in pair)).file for pair in pairs}
        alone = [home / Merge("parent", (task,)).file for task in tasks]
        if not all(path.exists() for path in (*files.values(), *alone)):
            yield None
            continue
        truths, before = [], []
        for task, path in zip(tasks, alone, strict=True):
            with np.load(path) as held:
                truths.append(held[f"{task}/scored_truth"])
                before.append(_accuracy(held[f"{task}/scored"], truths[-1]))
        values = np.full((len(tasks), len(tasks)), np.nan)
        for pair, path in files.items():
            with np.load(path) as held:
                for i, j in (pair, pair[::-1]):
                    after = _accuracy(held[f"{tasks[i]}/scored"], truths[i])
                    values[i, j] = 100 * (before[i] - after)
        yield Loss(name, method, seed, values)


def _accuracy(logits: np.ndarray, truth: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == truth).mean())


# -- tables of the second document


def report_spectra(family: Family, home: Path, runs: Sequence[Survey], command: str) -> None:
    """L1 and REC of each ordered pair, and the entropies of both spectra."""
    names = runs[0].names
    every = KINDS["both"]
    l1, rec = (
        np.stack([means(one, metric, every) for one in runs]).mean(axis=0)
        for metric in ("spectrum_l1", "rec")
    )
    own, projected = (np.mean(each, axis=0) for each in zip(
        *(_entropies(family, home, seed) for seed in SEEDS), strict=True
    ))  # fmt: skip
    rows, entropies = [], []
    for j, space in enumerate(names):
        others = [i for i in range(len(names)) if i != j]
        rows.append(
            {"space of": space}
            | {
                name: "" if i == j else f"{l1[i, j]:.2f} / {rec[i, j]:.3f}"
                for i, name in enumerate(names)
            }
            | {"mean": f"{l1[others, j].mean():.2f} / {rec[others, j].mean():.3f}"}
        )
        entropies.append(
            {"space of": space, "H(S₁)": f"{own[j]:.3f}"}
            | {
                name: "" if i == j else f"{projected[i, j]:.3f}" for i, name in enumerate(names)
            }
            | {"mean": f"{projected[others, j].mean():.3f}"}
        )  # fmt: skip
    lower = int((projected < own)[~np.eye(len(names), dtype=bool)].sum())
    pairs = len(names) * (len(names) - 1)
    uneven = np.abs(rec - rec.T)[np.triu_indices(len(names), 1)]
    shared = (
        f"LoRA of rank 8 on queries and values, means over modules, layers and {len(runs)} seeds. "
        "In a row the space U₁, V₁ of one task, in the columns the tasks projected into it; the "
        "poster writes row → column."
    )
    report(
        "geometry_projections", "Spectra projected into another task's space: L1 / REC", rows,
        note=(
            f"{shared} L1 of S₁ and S₂ in weights, REC of |S₂| and S₁ as shares. REC of the two "
            f"directions of a pair differs by {uneven.mean():.3f} on average, {uneven.max():.3f} "
            f"at most; REC ranges from {np.nanmin(_off(rec)):.3f} to {np.nanmax(_off(rec)):.3f}. "
            "In the poster, from 0.519 to 0.667, and up to 0.109 between the directions of a pair."
        ),
        command=command,
    )  # fmt: skip
    report(
        "geometry_entropies", "Entropies of spectra, own and projected", entropies,
        note=(
            f"{shared} Shannon entropy of the shares over log 8: of the row's own spectrum, and "
            f"of |S₂| of each column's task. S₂ is below S₁ in {lower} of {pairs} ordered pairs. "
            "In the poster, summary → entities 0.852 and 0.839, entities → summary 0.774 and 0.867."
        ),
        command=command,
    )  # fmt: skip


def _entropies(family: Family, home: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """H(S₁) [n] and H(S₂) [n, n], of i in the space of j, means over modules."""
    from alliage import vectors
    from alliage.geometry import low_rank_svd, spectral_entropy, spectral_projection

    held = [
        vectors.open(home / f"{task}-{seed}", base=home / family.base, name=task)
        for task in family.tasks
    ]
    own, projected = [], []
    for module in sorted(held[0].modules):
        factors = [vector.factors(module) for vector in held]
        spaces = [low_rank_svd(each.B, each.A, each.scale) for each in factors]
        own.append([float(spectral_entropy(S)) for _, S, _ in spaces])
        projected.append(
            [
                [
                    float(spectral_entropy(spectral_projection(U, V, i.B, i.A, i.scale).abs()))
                    for U, _, V in spaces
                ]
                for i in factors
            ]
        )
    return np.mean(own, axis=0), np.mean(projected, axis=0)


def _off(values: np.ndarray) -> np.ndarray:
    return values[~np.eye(len(values), dtype=bool)]


# -- figures


def draw(family: Family, home: Path, one: Survey, folder: Path) -> None:
    """Figures 2 to 4 of the first document, the map and the graph of the second, for a seed."""
    from alliage.geometry.surveying.figures import save_pictures

    save_pictures(one, folder / "both")
    for words in ("queries", "values"):
        save_pictures(survey(family, home, SEEDS[0], modules=KINDS[words]), folder / words)
    if family is FAMILIES[LORA]:
        for factor in ("A", "B"):
            options = {"metrics": ["l2", "cosine", "geodesic"], "spectra": False}
            alone = survey(family, home, SEEDS[0], of=factor, **options)
            save_pictures(alone, folder / factor)
    print(f"Drew {folder}.", flush=True)
