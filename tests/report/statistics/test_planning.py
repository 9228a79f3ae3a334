"""Against SciPy, and against studies that are simulated and judged one by one."""

import math

import numpy as np
import pytest
from scipy import stats

from noisytune.errors import ConfigError
from noisytune.report.statistics import paired
from noisytune.report.statistics.e_process import e_values, log_e_values
from noisytune.report.statistics.intervals import anytime_half_width
from noisytune.report.statistics.paired import Verdict
from noisytune.report.statistics.planning import plan


@pytest.mark.parametrize(("effect", "sd", "power"), [(0.5, 1.2, 0.8), (1.0, 1.0, 0.9), (-2.0, 1.0, 0.8)])
def test_fixed_pairs_are_the_first_that_suffice(effect: float, sd: float, power: float) -> None:
    n = plan(effect, sd, power).fixed
    assert n is not None

    def chance(n: int) -> float:
        shift, critical = abs(effect) / sd * np.sqrt(n), stats.t.ppf(0.975, n - 1)
        return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))

    assert chance(n) >= power - 0.002 > chance(n - 1) - 0.004


@pytest.mark.parametrize(("effect", "comparisons"), [(0.7, 1), (1.0, 3)])
def test_anytime_pairs_agree_with_simulation_within_three_points(effect: float, comparisons: int) -> None:
    n = plan(effect, 1.0, comparisons=comparisons).anytime
    assert n is not None
    drawn = np.random.default_rng(99).normal(effect, 1.0, (4000, n))
    assert (e_values(drawn) >= 20 * comparisons).any(axis=1).mean() == pytest.approx(0.8, abs=0.03)


def test_many_comparisons_take_more_pairs_and_not_more_than_the_longest_study() -> None:
    """So many that e does not suffice within three times the pairs of a t test."""
    single, many = plan(1.0, 0.5, power=0.99).anytime, plan(1.0, 0.5, power=0.99, most=10, comparisons=10**9).anytime
    assert single is not None
    assert many is not None
    drawn = np.random.default_rng(3).normal(1.0, 0.5, (4000, many))
    assert (e_values(drawn) >= 20 * 10**9).any(axis=1).mean() == pytest.approx(0.99, abs=0.01)
    assert single < 40 < many < 100
    assert plan(0.05, 1.0).anytime is None


def test_where_until_decided_stops_agrees_with_simulation_within_three_points() -> None:
    """Other studies, cut off and judged after every pair: intervals and directions from what is there by then."""
    effect, sd, margin, most, studies = 0.5, 1.0, 0.8, 30, 4000
    expected = plan(effect, sd, margin=margin, most=most).stops
    drawn = np.random.default_rng(7).normal(effect, sd, (studies, most))
    better, worse = log_e_values(drawn)
    ends, stops = np.full(studies, "inconclusive", dtype=object), np.full(studies, most)
    for n in range(most, 0, -1):
        part = drawn[:, :n]
        mean, e = part.mean(axis=1), (np.exp(better[:, n - 1]) + np.exp(worse[:, n - 1])) / 2
        half = np.inf if n < 2 else anytime_half_width(n, part.std(axis=1, ddof=1))
        shown, up = e >= 20, better[:, n - 1] > worse[:, n - 1]
        alike = ~shown & (np.abs(mean) + half <= margin)
        ends[shown] = np.where(up != (mean > 0), "mixed", np.where(up, "helped", "hurt"))[shown]
        ends[alike] = "equivalent"
        stops[shown | alike] = n
    for verdict, share in expected.shares.items():
        assert (ends == verdict).mean() == pytest.approx(share, abs=0.03), verdict
    assert stops.mean() == pytest.approx(expected.mean, abs=0.5)
    assert sum(expected.shares.values()) == pytest.approx(1.0)


def test_a_study_is_judged_as_its_report_judges_it() -> None:
    d = np.random.default_rng(1).normal(1.0, 0.5, 40)
    found = paired.summarise(d)
    assert paired.judge(found.evidence, found.needed, found.mean, found.anytime, 1.0) is Verdict.HELPED
    assert plan(1.0, 0.5, most=40).stops.shares["helped"] > 0.95


def test_what_is_too_small_to_find_says_so() -> None:
    found = plan(0.01, 1.0, most=20)
    assert (found.fixed, found.anytime) == (None, None)
    assert found.stops.shares["equivalent"] > 0.5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sd": 0.0}, "sd must be a finite number > 0, got 0"),
        ({"sd": -1.0}, "sd must be a finite number > 0, got -1"),
        ({"sd": float("nan")}, "sd must be a finite number > 0, got nan"),
        ({"effect": 0.0}, "effect must be a finite number other than 0"),
        ({"effect": float("-inf")}, "effect must be a finite number other than 0, got -inf"),
        ({"power": 1.0}, "power must be a share, 0 < power < 1, got 1"),
        ({"most": 0}, "most must be 1 to 2000 pairs, got 0"),
    ],
)
def test_refusals(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(**({"effect": 1.0, "sd": 1.0} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("comparisons", [3, 10])
def test_the_fixed_number_of_pairs_has_the_power_among_several_comparisons(comparisons: int) -> None:
    def chance(n: int) -> float:
        critical, shift = stats.t.ppf(1 - 0.05 / comparisons / 2, n - 1), math.sqrt(n)
        return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))

    n = plan(1.0, 1.0, comparisons=comparisons).fixed
    assert chance(n) >= 0.798
    assert chance(n - 1) < 0.802
