"""Against the formula in plain Python, its own coin flips, and simulated studies of every sort of difference."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune.report.statistics import e_process, intervals, paired
from noisytune.report.statistics.e_process import e_values, needed, sign_evidence
from noisytune.report.statistics.paired import Verdict

STUDIES, PAIRS = 2000, 100
differences = st.lists(st.integers(-50, 50).map(lambda i: i / 10), min_size=1, max_size=12)


def plain(d: list[float]) -> float:
    total = 0.0
    for stake, weight in zip(e_process.STAKES, e_process.WEIGHTS, strict=True):
        for c in (stake, -stake):
            money = 1.0
            for i, one in enumerate(d):
                usual = math.sqrt(sum(x * x for x in d[: i + 1]) / (i + 1))
                money *= 2 / (1 + math.exp(-2 * c * one / usual)) if usual else 1.0
            total += weight / 2 * money
    return total


@given(differences)
def test_it_is_the_formula(d: list[float]) -> None:
    assert e_process.WEIGHTS.sum() == pytest.approx(1.0)
    assert e_values(d)[-1] == pytest.approx(plain(d), rel=1e-9)
    assert sign_evidence(d).e == pytest.approx(plain(d), rel=1e-9)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_over_all_signs_of_any_sizes_its_mean_is_one_at_every_pair(sizes: list[int]) -> None:
    """The whole claim: given the sizes the bet is fair, so that Ville's inequality holds whatever the distribution."""
    every = np.array(list(product([-1, 1], repeat=len(sizes)))) * np.array(sizes)
    assert e_values(every).mean(axis=0) == pytest.approx(1.0)


@given(differences, st.floats(1e-3, 1e3))
def test_neither_unit_nor_names_of_the_arms_matter(d: list[float], scale: float) -> None:
    one, other = sign_evidence(d), sign_evidence([-scale * x for x in d])
    assert other.e == pytest.approx(one.e, rel=1e-6)
    assert abs(one.side + other.side) <= 1


@given(st.integers(0, 300))
def test_ties_are_no_evidence(n: int) -> None:
    assert sign_evidence([0.0] * n) == e_process.SignEvidence(1.0, 0)


@given(differences, st.integers(0, 5))
def test_ties_at_the_end_change_nothing(d: list[float], n: int) -> None:
    assert e_values([*d, *[0.0] * n])[-1] == pytest.approx(e_values(d)[-1])


def test_no_size_is_too_large() -> None:
    assert sign_evidence([1e300] * 2000).e > 1e300
    assert sign_evidence([1e-300] * 9).e > 20


def drawn(kind: str) -> np.ndarray:
    """Studies in which the arm does nothing: what a pair's two runs are is exchangeable. Shape (studies, pairs)."""
    rng = np.random.default_rng(2026)
    shape = (2, STUDIES, PAIRS)
    if kind == "normal":
        return rng.normal(size=shape[1:])
    if kind == "bimodal":
        return rng.choice([-3.0, 3.0], shape[1:]) + rng.normal(0, 0.2, shape[1:])
    if kind == "Cauchy":
        return rng.standard_cauchy(shape[1:])
    if kind == "tied":
        return np.round(rng.normal(0, 0.7, shape[1:]))
    if kind == "skewed":
        after, before = rng.lognormal(0, 1.5, shape)
    elif kind == "collapses":
        after, before = np.where(rng.random(shape) < 0.1, -15.0, rng.normal(size=shape))
    else:  # the spread differs from pair to pair, and the runs of a pair hang together
        after, before = rng.normal(size=shape) * rng.lognormal(0, 2, shape[1:]) + rng.normal(size=shape[1:])
    return after - before


@pytest.mark.parametrize("kind", ["normal", "bimodal", "Cauchy", "tied", "skewed", "collapses", "spread of its own"])
def test_where_the_arm_does_nothing_it_errs_at_any_n_in_at_most_5_percent(kind: str) -> None:
    e = e_values(drawn(kind))
    assert (e >= needed()).any(axis=1).mean() <= 0.05
    assert (e >= needed(3)).any(axis=1).mean() <= 0.05 / 3 + 0.005


def t_process(d: np.ndarray) -> np.ndarray:
    n = np.arange(1, d.shape[1] + 1)
    mean = np.cumsum(d, axis=1) / n
    squares = np.maximum(np.cumsum(d**2, axis=1) - n * mean**2, 1e-12)
    x = n * mean**2 / squares
    logs = -0.5 * np.log1p(n) + n / 2 * (np.log1p(x) - np.log1p(x / (1 + n)))
    logs[:, 0] = 0.0
    return np.exp(np.minimum(logs, 700.0))


@pytest.mark.parametrize(("effect", "pairs"), [(0.3, 100), (0.5, 50), (0.5, 100), (1.0, 12), (1.0, 20), (2.0, 10)])
def test_for_normal_differences_it_finds_what_the_t_process_finds(effect: float, pairs: int) -> None:
    d = np.random.default_rng(5).normal(effect, 1.0, (STUDIES, pairs))
    signs, t = ((process(d) >= 20.0).any(axis=1).mean() for process in (e_values, t_process))
    assert signs >= 0.9 * t
    assert t_process(d)[0, -1] == pytest.approx(intervals.e_value(d[0]), rel=1e-6)


def test_where_runs_collapse_it_finds_what_the_t_process_does_not() -> None:
    rng = np.random.default_rng(6)
    d = np.where(rng.random((STUDIES, 60)) < 0.1, rng.choice([-15.0, 15.0], (STUDIES, 60)), 0.0)
    d += rng.normal(1.0, 1.0, d.shape)
    signs, t = ((process(d) >= 20.0).any(axis=1).mean() for process in (e_values, t_process))
    assert signs > 1.5 * t


def verdict(d: np.ndarray) -> Verdict:
    found = paired.summarise(d)
    return paired.judge(found.evidence, found.needed, found.mean, found.anytime, 0.2)


def test_mixed_is_many_small_gains_and_a_rare_collapse_and_nothing_else() -> None:
    rng = np.random.default_rng(7)
    small = rng.normal(0.5, 0.1, 60)
    assert verdict(np.append(small, -90.0)) is Verdict.MIXED
    assert verdict(-np.append(small, -90.0)) is Verdict.MIXED
    assert verdict(small) is Verdict.HELPED
    assert verdict(np.append(small, -9.0)) is Verdict.HELPED
    for mean in (-1.0, -0.3, 0.0, 0.3, 1.0):
        said = {verdict(d) for d in rng.normal(mean, 1.0, (60, 40))}
        assert Verdict.MIXED not in said
