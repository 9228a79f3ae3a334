"""McNemar and the bootstrap against SciPy, scikit-learn and what they are meant to estimate."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from noisytune.report.evidence import items

labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40)


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(items).failed == 0


@given(labels)
def test_class_metrics_are_scikit_learns(rows: list[tuple[int, int]]) -> None:
    predicted, gold = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    assert items.accuracy(predicted, gold) == pytest.approx(metrics.accuracy_score(gold, predicted))
    assert items.macro_f1(predicted, gold) == pytest.approx(metrics.f1_score(gold, predicted, average="macro"))
    expected_f1 = metrics.f1_score(gold == 1, predicted == 1, zero_division=0)
    assert items.f1(predicted, gold) == pytest.approx(expected_f1)
    constant = len(set(predicted)) == 1 or len(set(gold)) == 1
    expected = 0.0 if constant else metrics.matthews_corrcoef(gold, predicted)
    assert items.matthews(predicted, gold) == pytest.approx(expected, abs=1e-12)


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50).round(1), rng.normal(size=50).round(1)
    assert items.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert items.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert items.r2(x, y) == pytest.approx(metrics.r2_score(y, x))
    assert items.pearson(np.ones(5), np.arange(5.0)) == 0.0


def test_mcnemar_by_hand() -> None:
    gold = np.zeros(20)
    before, after = np.zeros(20), np.zeros(20)
    before[:9], after[7:10] = 1, 1  # 7 gained, 2 wrong in both, 1 lost
    found = items.mcnemar(before, after, gold)
    assert (found.gained, found.lost) == (7, 1)
    assert found.p == pytest.approx(2 * (1 + 8) / 2**8)


def test_equal_runs_change_nothing() -> None:
    found = items.mcnemar([1, 0, 1], [1, 0, 1], [1, 1, 1])
    assert (found.gained, found.lost, found.p) == (0, 0, 1.0)


@pytest.fixture(scope="module")
def runs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions of 4 seeds on 60 examples: baseline, arm, gold."""
    rng = np.random.default_rng(3)
    gold = rng.integers(0, 3, 60).astype(float)
    wrong_before, wrong_after = rng.random((4, 60)) < 0.4, rng.random((4, 60)) < 0.3
    return np.where(wrong_before, (gold + 1) % 3, gold), np.where(wrong_after, (gold + 1) % 3, gold), gold


def test_bootstrap_by_counting_is_the_bootstrap_by_recomputing(runs: tuple[np.ndarray, ...]) -> None:
    quick = items.hierarchical_bootstrap(*runs, seed=5, resamples=300)
    slow = items.hierarchical_bootstrap(*runs, lambda p, r: items.accuracy(p, r), seed=5, resamples=300)
    assert (quick.mean, quick.interval.low, quick.interval.high) == pytest.approx(
        (slow.mean, slow.interval.low, slow.interval.high)
    )


def test_bootstrap_is_seeded_and_mirrors(runs: tuple[np.ndarray, ...]) -> None:
    before, after, gold = runs
    one = items.hierarchical_bootstrap(before, after, gold, seed=1)
    other = items.hierarchical_bootstrap(after, before, gold, seed=1)
    assert one == items.hierarchical_bootstrap(before, after, gold, seed=1)
    assert (one.interval.low, one.interval.high) == pytest.approx((-other.interval.high, -other.interval.low))
    assert one.interval.low <= one.mean <= one.interval.high
    assert one.mean == pytest.approx(100 * ((after == gold).mean() - (before == gold).mean()))


def test_bootstrap_knows_that_all_seeds_saw_the_same_examples() -> None:
    """Where every seed gives the same predictions, only the choice of examples varies, as with one seed."""
    rng = np.random.default_rng(0)
    gold = np.zeros(200)
    before, after = (rng.random(200) < 0.4).astype(float), (rng.random(200) < 0.4).astype(float)
    many = items.hierarchical_bootstrap(np.tile(before, (8, 1)), np.tile(after, (8, 1)), gold, seed=0)
    gain = (after == gold).astype(float) - (before == gold)
    expected = 1.96 * 100 * gain.std() / np.sqrt(200)
    assert (many.interval.high - many.interval.low) / 2 == pytest.approx(expected, rel=0.1)
