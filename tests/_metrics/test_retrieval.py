"""Retrieval measures against counts by hand, scikit-learn, and a threshold found by trying them all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from noisytune._metrics import RIGHT, score
from noisytune._metrics.retrieval import NONE, best_threshold, is_right, retrieval_items

NAN = math.nan


def items(mined, scores, gold, elsewhere=NAN):
    """Of pairs that are said from a score on: from the best one here, and from one that was chosen elsewhere."""
    width = max(map(len, gold))
    table = np.array([[*lines, *[NONE] * (width - len(lines))] for lines in gold], dtype=float)
    mined, scores = np.array(mined, dtype=float), np.array(scores)
    paired = mined != NONE
    best = best_threshold(scores[paired], is_right(mined, table)[paired], sum(map(len, gold)))
    said = [(scores >= one) * 1.0 + 0 * one for one in (best, elsewhere)]
    return retrieval_items(
        np.column_stack([np.full(len(mined), NAN), mined, *said, mined]), table, np.arange(float(len(mined)))
    )


def asked(back, nearest, gold):
    """Where nothing is mined."""
    none = np.full(len(back), NAN)
    return retrieval_items(np.column_stack([back, none, none, none, nearest]), gold, np.arange(float(len(back))))


def test_by_hand():
    """Pairs by falling score: right 1.4, wrong 1.3, right 1.2, wrong 1.1, and one of three gold pairs is not mined.

    F1 after each of them: 2/4, 2/5, 4/6, 4/7.
    """
    rows = items([5, 6, 7, NONE, 9], [1.4, 1.3, 1.2, NAN, 1.1], [[5], [NONE], [7], [8], [NONE]], elsewhere=1.35)
    found = score("retrieval", rows)
    assert found["mining_f1"] == pytest.approx(4 / 6)
    assert found["mining_f1_dev"] == pytest.approx(2 / 4)
    assert rows[:, 1:4].tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert rows[:, 4:7].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert RIGHT["retrieval"](rows).tolist() == [1, 0, 1, 0, 1]
    assert "retrieval_accuracy" not in found
    assert found["bitext_f1"] == pytest.approx(2 / 3), "two of the three lines that are asked for"


def test_several_translations_of_a_sentence_count_each():
    rows = items([4, 7], [1.5, 1.4], [[4, 5], [7]])
    assert rows[:, 1:4].tolist() == [[1, 0, 1], [1, 0, 0]]
    assert score("retrieval", rows)["mining_f1"] == pytest.approx(4 / 5)


def test_hits_are_an_accuracy_and_say_which_examples_are_right():
    rows = asked([0, 2, 2], [0, 0, 0], np.arange(3.0)[:, None])
    found = score("retrieval", rows)
    assert found["retrieval_accuracy"] == pytest.approx(2 / 3)
    assert not {"mining_f1", "mining_f1_dev"} & set(found)
    assert RIGHT["retrieval"](rows).tolist() == [1, 0, 1]


def test_nothing_mined_right_says_every_pair():
    rows = items([1, 0], [1.5, 1.2], [[0], [1]])
    assert rows[:, 1:4].tolist() == [[0, 1, 1], [0, 1, 1]]
    assert score("retrieval", rows)["mining_f1"] == 0.0


@given(st.lists(st.tuples(st.sampled_from([0.5, 1.0, 1.25, 1.5, 3.0]), st.booleans()), min_size=1), st.integers(0, 5))
def test_no_threshold_is_better_than_the_best_one(pairs, missed):
    scores, right = np.array([one for one, _ in pairs]), np.array([ok for _, ok in pairs])
    gold = int(right.sum()) + missed

    def f1(threshold):
        said = scores >= threshold
        return 2 * int((said & right).sum()) / (int(said.sum()) + gold) if said.any() or gold else 0.0

    found = best_threshold(scores, right, gold)
    assert f1(found) == max(f1(threshold) for threshold in scores)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_bitext_f1_is_scikit_learns_weighted_one(pairs):
    said, gold = np.array(pairs, dtype=float).T
    rows = asked(np.full(len(pairs) + 1, NAN), [*said, 0], np.array([*gold, NONE])[:, None])
    expected = f1_score(gold, said, average="weighted", zero_division=0)
    assert score("retrieval", rows)["bitext_f1"] == pytest.approx(expected)
