"""The measures, against their definitions written out by hand and against known answers."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune._metrics import METRICS
from noisytune._metrics import score as score_items

pairs_of_ids = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)
pairs_of_bits = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)
whole = st.integers(-50, 50).map(float)
pairs_of_values = st.lists(st.tuples(whole, whole), min_size=2, max_size=40)


def score(kind, references, predictions):
    return score_items(kind, np.column_stack([predictions, references]))


def columns(pairs):
    return [list(column) for column in zip(*pairs, strict=True)]


@settings(max_examples=50)
@given(pairs_of_ids)
def test_accuracy_and_macro_f1_follow_their_definitions(pairs):
    references, predictions = columns(pairs)
    got = score("classification", references, predictions)
    assert got["accuracy"] == pytest.approx(sum(r == p for r, p in pairs) / len(pairs))
    each = []
    for c in {*references, *predictions}:
        hit = sum(r == p == c for r, p in pairs)
        each.append(2 * hit / (references.count(c) + predictions.count(c)))
    assert got["macro_f1"] == pytest.approx(sum(each) / len(each))


@settings(max_examples=50)
@given(pairs_of_bits)
def test_binary_measures_follow_the_four_counts(pairs):
    references, predictions = columns(pairs)
    got = score("classification", references, predictions)
    tp, tn = pairs.count((1, 1)), pairs.count((0, 0))
    fp, fn = pairs.count((0, 1)), pairs.count((1, 0))
    if tp + fp + fn:
        assert got["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    else:
        assert "f1" not in got
    bottom = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert got["matthews"] == pytest.approx((tp * tn - fp * fn) / bottom if bottom else 0.0)


@settings(max_examples=50)
@given(pairs_of_values)
def test_correlations_follow_numpy_and_are_absent_where_undefined(pairs):
    references, predictions = columns(pairs)
    got = score("regression", references, predictions)
    if len(set(references)) == 1 or len(set(predictions)) == 1:
        assert not {"pearson", "spearman"} & set(got)
        return
    assert got["pearson"] == pytest.approx(np.corrcoef(references, predictions)[0, 1], abs=1e-9)

    def ranks(values):
        return [(sum(v < x for v in values) + sum(v <= x for v in values) + 1) / 2 for x in values]

    assert got["spearman"] == pytest.approx(np.corrcoef(ranks(references), ranks(predictions))[0, 1], abs=1e-9)


@pytest.mark.parametrize("prediction", [2.5, math.nan, math.inf])
def test_collapsed_and_diverged_regressions_warn_of_nothing(prediction):
    assert not {"pearson", "spearman"} & set(score("regression", [1.0, 2.0, 3.0], [prediction] * 3))


def test_f1_is_for_two_classes_and_its_positive_class_is_1():
    assert score("classification", [1, 0, 0], [1, 0, 0])["f1"] == 1.0
    assert "f1" not in score("classification", [0, 1, 2], [0, 1, 2])


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_perfect_prediction_scores_1_everywhere(kind):
    got = score(kind, [0, 1, 1, 0], [0, 1, 1, 0])
    assert set(got) == set(METRICS[kind])
    assert all(value == pytest.approx(1.0) for value in got.values())


def test_no_items_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        score_items("classification", np.empty((0, 2)))


@settings(max_examples=100)
@given(pairs_of_ids)
def test_class_measures_are_scikit_learns_to_the_last_bit(pairs):
    references, predictions = columns(pairs)
    got = score("classification", references, predictions)
    assert got["accuracy"] == sklearn.metrics.accuracy_score(references, predictions)
    assert got["macro_f1"] == sklearn.metrics.f1_score(references, predictions, average="macro")
    if len({*references, *predictions}) > 1:  # else scikit-learn warns
        assert got["matthews"] == sklearn.metrics.matthews_corrcoef(references, predictions)


@settings(max_examples=100)
@given(st.integers(2, 60), st.integers(0, 2**32 - 1), st.integers(-30, 30), st.booleans())
def test_correlations_are_scipys_to_the_last_bit(n, seed, exponent, rounded):
    rng = np.random.default_rng(seed)
    references, predictions = 10.0**exponent * rng.normal(size=(2, n)).round(1 if rounded else 12)
    got = score("regression", references, predictions)
    if len(set(references)) > 1 and len(set(predictions)) > 1:
        with warnings.catch_warnings(action="ignore"):
            assert got["pearson"] == scipy.stats.pearsonr(references, predictions).statistic
            assert got["spearman"] == scipy.stats.spearmanr(references, predictions).statistic
            assert got["r2"] == sklearn.metrics.r2_score(references, predictions)


def test_importing_tasks_and_metrics_loads_no_heavy_library():
    code = (
        "import sys, noisytune.lab.tasks, noisytune._metrics as m, numpy\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'pandas', 'pyarrow', 'yaml'} & set(sys.modules)\n"
        "m.score('classification', numpy.array([[0, 1], [0, 1]]))\n"
        "sys.exit(f'{heavy}' if heavy or {'torch', 'transformers'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
