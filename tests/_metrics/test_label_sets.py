"""Sets of labels against scikit-learn."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from noisytune._metrics import RIGHT, label_sets, score
from noisytune._metrics.label_sets import label_set_items


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(label_sets).failed == 0


@settings(max_examples=100)
@given(st.integers(1, 30), st.integers(2, 5), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_scores_are_scikit_learns(examples: int, labels: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold, said = (rng.random((2, examples, labels)) < share).astype(float)
    items = label_set_items(said, gold)
    found = score("multilabel", items)
    assert found["subset_accuracy"] == pytest.approx(metrics.accuracy_score(gold, said))
    assert RIGHT["multilabel"](items).mean() == pytest.approx(found["subset_accuracy"])
    for key, average in (("micro_f1", "micro"), ("macro_f1", "macro")):
        expected = metrics.f1_score(gold, said, average=average, zero_division=math.nan)
        assert found.get(key, math.nan) == pytest.approx(expected, nan_ok=True)
