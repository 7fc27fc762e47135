"""Distributions that the measures are tried on, and linear programs as oracles."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linprog

TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@st.composite
def predictions(draw, size=40):
    """Probabilities, labels and weights, all [n]: spread, tied, at the ends or constant."""
    n = draw(st.integers(1, size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["spread", "tied", "ends", "constant"]))
    values = {
        "spread": rng.random(n),
        "tied": rng.integers(0, 6, n) / 5,
        "ends": np.round(rng.beta(0.1, 0.1, n), 6),
        "constant": np.full(n, rng.random()),
    }[kind]
    rate = draw(st.sampled_from(["own", "opposite", "any"]))
    share = {"own": values, "opposite": 1 - values, "any": np.full(n, rng.random())}[rate]
    weights = rng.random(n) ** 4 + 1e-3 if draw(st.booleans()) else np.ones(n)
    return values, (rng.random(n) < share).astype(float), weights


def grouped(values, labels, weights):
    """Distinct values, their mass and their mass of label 1, not by the code under test."""
    distinct = sorted(set(values.tolist()))
    total = weights.sum()
    mass = np.array([weights[values == v].sum() / total for v in distinct])
    positive = np.array([(weights * labels)[values == v].sum() / total for v in distinct])
    return np.array(distinct), mass, positive


def largest_product(surplus, gaps, bound=1.0):
    """max c·w over |w| ≤ bound, |Δw| ≤ gaps, by HiGHS."""
    n = len(surplus)
    if n == 1:
        return bound * abs(surplus[0])
    step = sparse.diags_array([-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
    found = linprog(
        -surplus,
        A_ub=sparse.vstack([step, -step]),
        b_ub=np.concatenate([gaps, gaps]),
        bounds=(-bound, bound),
        method="highs",
        options=TIGHT,
    )
    assert found.success
    return -found.fun


def exact_largest_product(surplus, gaps):
    """The same in rational numbers, by trying every place of the dual's potentials."""
    sums = [Fraction(0)]
    for one in surplus:
        sums.append(sums[-1] + Fraction(one))
    cost = [abs(one) for one in sums]
    for i, gap in enumerate(gaps, start=1):
        held = [c + Fraction(gap) * abs(sums[i] - at) for c, at in zip(cost, sums, strict=True)]
        cost = [min(c + abs(a - at) for c, a in zip(held, sums, strict=True)) for at in sums]
    return float(cost[-1])


def grid_distance(values, mass, positive, cells):
    """Least E|u − v| over all joint laws of (u, v, y) with u on a grid, by HiGHS."""
    places = np.linspace(0, 1, cells + 1)
    k, m = len(places), len(values)
    cost = np.abs(places[:, None] - values)[..., None].repeat(2, axis=2).ravel()
    marginals = sparse.hstack([sparse.eye_array(2 * m)] * k)
    one = np.zeros((k, m, 2))
    one[..., 1], one[..., 0] = 1 - places[:, None], -places[:, None]
    calibrated = sparse.block_diag([row.reshape(1, -1) for row in one])
    found = linprog(
        cost,
        A_eq=sparse.vstack([marginals, calibrated]).tocsr(),
        b_eq=np.concatenate([np.stack([mass - positive, positive], axis=1).ravel(), np.zeros(k)]),
        method="highs",
        options=TIGHT,
    )
    assert found.success
    return found.fun
