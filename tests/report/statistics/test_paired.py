"""Against SciPy, hand-computed cases, brute-force inversion and simulated studies."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from noisytune.errors import ConfigError, DataError
from noisytune.report.statistics import intervals, paired, power, sign_flip
from noisytune.report.statistics.e_process import SignEvidence, e_values
from noisytune.report.statistics.intervals import Interval
from noisytune.report.statistics.paired import Verdict

values = st.integers(-500, 500).map(lambda i: i / 100)
studies = st.lists(values, min_size=2, max_size=12)
spread = studies.filter(lambda d: np.std(d) > 1e-3)


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(paired).failed == 0


@given(spread)
def test_fixed_interval_is_scipys(d: list[float]) -> None:
    expected = stats.ttest_rel(d, np.zeros(len(d))).confidence_interval(0.95)
    found = intervals.fixed_interval(d)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(values, min_size=2, max_size=9))
def test_sign_flip_is_scipys_permutation_test(d: list[float]) -> None:
    expected = stats.permutation_test((d,), lambda x: round(float(np.sum(x)), 6), permutation_type="samples")
    assert sign_flip.sign_flip(d).p == pytest.approx(expected.pvalue)
    assert sign_flip.sign_flip(d).exact


@pytest.mark.parametrize("n", [5, 8, 12])
def test_sign_flip_of_ranks_is_wilcoxons_exact_test(n: int) -> None:
    d = np.arange(1, n + 1) * np.random.default_rng(n).choice([-1, 1], n)
    assert sign_flip.sign_flip(d).p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_sign_flip_of_equal_steps_is_the_binomial_test() -> None:
    d = [0.3] * 16 + [-0.3] * 3
    assert sign_flip.sign_flip(d).p == pytest.approx(stats.binomtest(16, 19).pvalue)


def test_five_pairs_cannot_reach_p_05() -> None:
    assert sign_flip.sign_flip([9.0, 8.0, 7.0, 6.0, 5.0]).p == 0.0625


def test_many_pairs_are_flipped_at_random_but_reproducibly() -> None:
    d = [0.3] * 26 + [-0.3] * 14
    found = sign_flip.sign_flip(d, seed=1)
    assert not found.exact
    assert found == sign_flip.sign_flip(d, seed=1)
    assert found.p == pytest.approx(stats.binomtest(26, 40).pvalue, abs=0.005)
    assert sign_flip.sign_flip([1.0] * 60).p > 0.0


@given(st.lists(st.lists(st.integers(-3, 3), max_size=40), max_size=5))
def test_many_comparisons_at_once_are_the_same_as_one_by_one(each: list[list[int]]) -> None:
    assert sign_flip.sign_flips(each) == [sign_flip.sign_flip(d) for d in each]


def _brute_e(d: np.ndarray, mean: float, g: float) -> float:
    """A likelihood ratio, integrated numerically: noncentral t with effect sizes from N(0, g) against central t."""
    n = d.size
    t = float(stats.ttest_1samp(d, mean).statistic)
    effects = np.linspace(-12, 12, 20001) * math.sqrt(g)
    prior = stats.norm.pdf(effects, scale=math.sqrt(g))
    densities = stats.nct.pdf(t, n - 1, effects * math.sqrt(n))
    return float(np.trapezoid(densities * prior, effects) / stats.t.pdf(t, n - 1))


@pytest.mark.parametrize("g", [0.5, 1.0, 2.0])
def test_e_value_is_the_bayes_factor_that_it_claims_to_be(g: float) -> None:
    d = np.array([0.4, 1.1, -0.3, 0.9, 0.6, 0.2, -0.1])
    for mean in (0.0, 0.3, -1.0):
        assert intervals.e_value(d, mean, g) == pytest.approx(_brute_e(d, mean, g), rel=1e-4)


@pytest.mark.parametrize("n", [5, 6, 9, 20, 100])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_interval_is_where_the_e_value_crosses_one_over_alpha(n: int, alpha: float) -> None:
    d = np.random.default_rng(n).normal(0.7, 1.3, n)
    found, mean = intervals.anytime_interval(d, alpha), float(d.mean())
    far = [intervals.e_value(d, mean + s * 1e9) < 1 / alpha for s in (-1, 1)]
    if all(far):
        assert (found.low, found.high) == (-math.inf, math.inf)
        return
    low = optimize.brentq(lambda m: intervals.e_value(d, m) - 1 / alpha, mean - 1e6, mean, xtol=1e-12)
    high = optimize.brentq(lambda m: intervals.e_value(d, m) - 1 / alpha, mean, mean + 1e6, xtol=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)


def test_four_pairs_exclude_nothing_and_five_do() -> None:
    assert not intervals.anytime_interval([1.0, 1.1, 0.9, 1.05]).bounded
    assert intervals.anytime_interval([1.0, 1.1, 0.9, 1.05, 1.0]).bounded


@pytest.mark.parametrize("value", [0.0, 0.3, -50.0])
def test_equal_differences_are_no_evidence(value: float) -> None:
    found = paired.summarise([value] * 40)
    assert found.anytime == found.fixed == Interval(-math.inf, math.inf)
    assert found.detectable == found.detectable_fixed == math.inf
    assert intervals.e_value([value] * 40, value + 1.0) <= 1.0
    assert not np.isfinite(intervals.running([value] * 40).low).any()
    assert paired.pooled([[value, value]] * 6).fixed == Interval(-math.inf, math.inf)


@given(studies)
def test_ties_bound_the_interval_no_sooner_than_the_distinct_pairs_would(d: list[float]) -> None:
    most = max(d.count(value) for value in d)
    enough = len(d) - most + min(most, 2) >= 5
    assert intervals.anytime_interval(d).bounded == enough
    assert intervals.e_value(d, 1e9) < 20 or enough


def _differences(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Shape (studies, 40) and the true mean: a few jumps among exact ties."""
    jumps = rng.random((2000, 40))
    if kind == "a tenth at +15":
        return np.where(jumps < 0.1, 15.0, 0.0), 1.5
    if kind == "a fifth at +7.5":
        return np.where(jumps < 0.2, 7.5, 0.0), 1.5
    if kind == "a tenth at +9, the rest at -1":
        return np.where(jumps < 0.1, 9.0, -1.0), 0.0
    return np.where(jumps < 0.3, 5.0, 0.0), 1.5


@pytest.mark.parametrize(
    "kind", ["a tenth at +15", "a fifth at +7.5", "a third at +5", "a tenth at +9, the rest at -1"]
)
def test_ties_and_jumps_err_at_any_n_in_at_most_5_percent(kind: str) -> None:
    drawn, truth = _differences(kind, np.random.default_rng(11))
    band = intervals.running(drawn)
    assert ((band.low > truth) | (band.high < truth)).any(axis=1).mean() <= 0.05
    if truth > 1.0:
        assert ((band.low >= -1.0) & (band.high <= 1.0)).any(axis=1).mean() <= 0.05


@pytest.mark.parametrize("d", [[], [0.4]])
def test_too_few_pairs_for_an_interval(d: list[float]) -> None:
    found = paired.summarise(d)
    assert not found.anytime.bounded
    assert not found.fixed.bounded
    assert found.detectable == found.detectable_fixed == math.inf
    assert found.sign_flip.p == 1.0


def test_summary_by_hand() -> None:
    found = paired.summarise([1.0, 0.0, -0.5, 1.5])
    assert (found.n, found.mean, found.wins, found.ties, found.losses) == (4, 0.5, 2, 1, 1)
    assert found.sd == pytest.approx(math.sqrt((0.25 + 0.25 + 1.0 + 1.0) / 3))
    assert found.fixed.high == pytest.approx(0.5 + 3.182446 * found.sd / 2)


@settings(max_examples=40)
@given(spread, st.floats(-5, 5), st.floats(0.1, 10))
def test_intervals_move_and_stretch_with_the_differences(d: list[float], shift: float, scale: float) -> None:
    before, after = paired.summarise(d), paired.summarise(np.array(d) * scale + shift)
    for one, other in ((before.fixed, after.fixed), (before.anytime, after.anytime)):
        expected = (one.low * scale + shift, one.high * scale + shift)
        assert (other.low, other.high) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert after.detectable == pytest.approx(before.detectable * scale, rel=1e-6)


@settings(max_examples=40)
@given(studies)
def test_swapping_arm_and_baseline_mirrors_everything(d: list[float]) -> None:
    one, other = paired.summarise(d), paired.summarise([-x for x in d])
    assert (one.wins, one.losses, one.sign_flip.p) == (other.losses, other.wins, other.sign_flip.p)
    for mine, theirs in ((one.fixed, other.fixed), (one.anytime, other.anytime)):
        assert (mine.low, mine.high) == pytest.approx((-theirs.high, -theirs.low))


@settings(max_examples=40)
@given(st.data(), studies)
def test_order_does_not_matter_at_a_fixed_n(data: st.DataObject, d: list[float]) -> None:
    one, other = paired.summarise(d), paired.summarise(data.draw(st.permutations(d)))
    assert one.fixed.low == pytest.approx(other.fixed.low, abs=1e-9)
    assert one.sign_flip == other.sign_flip
    assert one.detectable_fixed == pytest.approx(other.detectable_fixed, abs=1e-9)


@pytest.mark.parametrize("tasks", [1, 9])
def test_the_fixed_interval_of_several_tasks_leaves_zero_out_in_four_of_five_studies(tasks: int) -> None:
    """At the difference that is called detectable, brought from the spread that was seen to the true one, 1."""
    rng, n = np.random.default_rng(tasks), 5
    one = paired.pooled(rng.normal(size=(n, tasks)))
    seen, true = (one.fixed.high - one.fixed.low) / 2, stats.t.ppf(0.975, tasks * (n - 1)) / math.sqrt(n * tasks)
    told = one.detectable_fixed * true / seen
    shown = [paired.pooled(rng.normal(told, size=(n, tasks))).fixed.low > 0 for _ in range(1500)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


@given(st.integers(5, 3000), st.sampled_from([0.05, 0.01, 0.05 / 7]))
def test_band_shrinks_with_pairs_and_widens_with_confidence(n: int, alpha: float) -> None:
    now, later = intervals.anytime_half_width([n, n + 1], 1.0, alpha)
    assert later <= now
    assert intervals.anytime_half_width(n, 1.0, alpha / 2) >= now
    assert now >= stats.t.ppf(1 - alpha / 2, n - 1) / math.sqrt(n)


def test_half_width_against_the_fixed_one_at_twenty_pairs() -> None:
    fixed = stats.t.ppf(0.975, 19) / math.sqrt(20)
    assert intervals.anytime_half_width(20, 1.0) / fixed == pytest.approx(1.6, abs=0.05)


@settings(max_examples=40)
@given(studies)
def test_running_ends_are_the_interval_of_each_prefix(d: list[float]) -> None:
    band = intervals.running(d, comparisons=2)
    for n in range(2, len(d) + 1):
        expected = intervals.anytime_interval(d[:n], 0.025)
        assert band.mean[n - 1] == pytest.approx(np.mean(d[:n]))
        assert (band.low[n - 1], band.high[n - 1]) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_one_task_pooled_is_the_single_task_case() -> None:
    d = np.array([0.5, 1.0, -0.2, 0.8, 0.4, 0.1])
    assert paired.pooled(d[:, None]) == paired.summarise(d)


def test_pooling_tasks() -> None:
    table = np.random.default_rng(0).normal([0.5, 2.5, -0.5], 1.0, (6, 3))
    found = paired.pooled(table)
    within = np.sqrt(np.mean(table.var(axis=0, ddof=1)))
    assert found.mean == pytest.approx(table.mean())
    half = stats.t.ppf(0.975, 15) * within / math.sqrt(18)
    assert found.fixed.high - found.mean == pytest.approx(half)
    by_seed = table.mean(axis=1)
    assert found.anytime == intervals.anytime_interval(by_seed)
    assert found.sign_flip == sign_flip.sign_flip(by_seed)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_detectable_difference_is_detected_in_80_percent_of_studies(n: int) -> None:
    critical = float(stats.t.ppf(0.975, n - 1))
    found = power.detectable(n, 2.0, critical)
    assert 1 - stats.nct.cdf(critical, n - 1, found / 2.0 * math.sqrt(n)) == pytest.approx(0.8, abs=0.002)
    drawn = np.random.default_rng(n).normal(found, 2.0, (20_000, n))
    assert (np.abs(stats.ttest_1samp(drawn, 0, axis=1).statistic) > critical).mean() == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("n", [8, 12, 20, 60])
def test_detectable_by_the_signs_is_detected_in_about_80_percent_of_studies(n: int) -> None:
    found = power.detectable(n, 1.0, power.sign_critical_t(n, 20.0))
    drawn = np.random.default_rng(n).normal(found, 1.0, (4000, n))
    assert (e_values(drawn)[:, -1] >= 20.0).mean() == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize("enough", [20.0, 80.0, 1000.0])
def test_the_first_number_of_pairs_that_can_settle_anything(enough: float) -> None:
    first = power.first_to_settle(enough)
    assert e_values([1.0] * (first - 1))[-1] < enough <= e_values([1.0] * first)[-1]
    assert not math.isfinite(power.sign_critical_t(first - 1, enough))


def test_pairs_needed_is_the_first_that_is_narrow_enough() -> None:
    n = power.pairs_needed(1.3, 0.5)
    assert n is not None
    assert intervals.anytime_half_width(n, 1.3) <= 0.5 < intervals.anytime_half_width(n - 1, 1.3)
    assert power.pairs_needed(1e6, 0.5, most=100) is None


def test_holm_by_hand_and_ties() -> None:
    assert paired.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert paired.holm([0.9, 0.8]) == [1.0, 1.0]
    assert paired.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_p_and_bonferroni(p: list[float]) -> None:
    for raw, adjusted in zip(p, paired.holm(p), strict=True):
        assert raw <= adjusted <= min(1.0, raw * len(p)) + 1e-12


def test_selection_bias_is_the_expected_maximum() -> None:
    drawn = np.random.default_rng(0).normal(size=(200_000, 7)).max(axis=1).mean()
    assert power.selection_bias(7) == pytest.approx(drawn, abs=0.01)
    assert power.selection_bias(1) == pytest.approx(0.0, abs=1e-9)
    assert power.selection_bias(2) == pytest.approx(1 / math.sqrt(math.pi))


@given(st.floats(-3, 3), st.floats(0, 3), st.floats(0, 2), st.floats(0, 100), st.sampled_from([-1, 0, 1]))
def test_verdicts(centre: float, half: float, margin: float, e: float, side: int) -> None:
    interval = Interval(centre - half, centre + half)
    verdict = paired.judge(SignEvidence(e, side), 20.0, centre, interval, margin)
    assert (verdict is Verdict.HELPED) == (e >= 20.0 and side > 0 and centre > 0)
    assert (verdict is Verdict.HURT) == (e >= 20.0 and side < 0 and centre < 0)
    assert (verdict is Verdict.MIXED) == (e >= 20.0 and side * centre <= 0)
    inside = max(-interval.low, interval.high) <= margin
    assert (verdict is Verdict.EQUIVALENT) == (e < 20.0 and inside)


@given(st.floats(-3, 3), st.floats(0, 3), st.floats(0, 2))
def test_what_the_interval_alone_says(centre: float, half: float, margin: float) -> None:
    interval = Interval(centre - half, centre + half)
    verdict = paired.judge_by_interval(interval, margin)
    assert (verdict is Verdict.HELPED) == (interval.low > 0)
    assert (verdict is Verdict.HURT) == (interval.high < 0)
    assume(interval.low <= 0 <= interval.high)
    inside = max(-interval.low, interval.high) <= margin
    assert verdict is (Verdict.EQUIVALENT if inside else Verdict.INCONCLUSIVE)


def test_an_unbounded_interval_is_inconclusive() -> None:
    nowhere = Interval(-math.inf, math.inf)
    assert paired.judge(SignEvidence(1.0, 0), 20.0, 0.0, nowhere, 1.0) is Verdict.INCONCLUSIVE
    assert paired.judge_by_interval(nowhere, 1.0) is Verdict.INCONCLUSIVE


def test_refusals() -> None:
    with pytest.raises(DataError, match="1 of 2 are not finite"):
        paired.summarise([1.0, math.nan])
    with pytest.raises(ConfigError, match="alpha = 2"):
        intervals.anytime_interval([1.0, 2.0], alpha=2)
    with pytest.raises(ConfigError, match="best of 0"):
        power.selection_bias(0)


STUDIES, PAIRS = 2000, 100


@pytest.fixture(scope="module")
def null() -> np.ndarray:
    """Differences of studies in which the arm does nothing: shape (studies, pairs)."""
    return np.random.default_rng(2024).normal(0.0, 0.8, (STUDIES, PAIRS))


def test_null_fixed_interval_covers_95_percent(null: np.ndarray) -> None:
    for n in (5, 20):
        found = [intervals.fixed_interval(d[:n]) for d in null]
        assert 0.93 <= np.mean([i.low <= 0 <= i.high for i in found]) <= 0.97


def test_null_anytime_interval_errs_at_any_n_in_at_most_5_percent(null: np.ndarray) -> None:
    band = intervals.running(null)
    anytime = ((band.low > 0) | (band.high < 0)).any(axis=1).mean()
    assert anytime <= 0.05


def test_null_looking_again_with_a_fixed_n_test_errs_far_more_often(null: np.ndarray) -> None:
    n = np.arange(2, PAIRS + 1)
    sums, squares = np.cumsum(null, axis=1)[:, 1:], np.cumsum(null**2, axis=1)[:, 1:]
    sd = np.sqrt((squares - sums**2 / n) / (n - 1))
    naive = (np.abs(sums / np.sqrt(n) / sd) > stats.t.ppf(0.975, n - 1)).any(axis=1).mean()
    assert naive > 0.3


def test_null_simultaneous_intervals_err_for_any_arm_in_at_most_5_percent() -> None:
    drawn = np.random.default_rng(7).normal(size=(STUDIES, 3, 40))
    band = intervals.running(drawn, comparisons=3)
    assert ((band.low > 0) | (band.high < 0)).any(axis=(1, 2)).mean() <= 0.05
