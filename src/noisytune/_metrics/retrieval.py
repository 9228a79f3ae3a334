"""Measures of retrieved translations: is a sentence's translation its nearest neighbour, are the mined pairs right?

One item a foreign sentence, its translations being gold. Columns: whether its translation's nearest neighbour is it;
pairs found, wrongly said and missed with the threshold that is best on gold; the same with the threshold that another
split chose; its own nearest neighbour, and its translation. NaN where a column does not apply.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from noisytune._metrics.metric import Floats, Items, Metric, f1_of, mean_of

NONE = -1.0
"""In place of a line: no sentence."""


def retrieval_items(answers: Floats, gold: Floats, lines: Floats) -> Items:
    """The items of a split.

    Args:
        answers: shape (sentences, 5). The line of the translation's nearest neighbour; the line of the sentence that
            it was paired with, or `NONE`; whether that pair is said with the threshold that is best here, and with the
            one that another split chose; the line of its own nearest neighbour. NaN where a column does not apply.
        gold: shape (sentences, most), the lines of the translations, filled up with `NONE`.
        lines: shape (sentences,), their own.

    >>> nan = math.nan
    >>> answers = np.array([[nan, 5, 1, nan, 5], [nan, 7, 1, nan, 7], [nan, NONE, 0, nan, 7]])
    >>> retrieval_items(answers, np.array([[5.0], [NONE], [NONE]]), np.arange(3.0))[:, 1:4].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    back, mined, *said, nearest = answers.T
    hits = np.where(np.isnan(back), math.nan, back == lines)
    right, asked = is_right(mined, gold), gold[:, 0] != NONE
    counts = [_counts(one, right, (gold != NONE).sum(axis=1)) for one in said]
    return np.column_stack([hits, *counts, np.where(asked, nearest, math.nan), np.where(asked, gold[:, 0], math.nan)])


def is_right(lines: Floats, gold: Floats) -> npt.NDArray[np.bool_]:
    """Whether each line is one of its row of gold, shape (sentences,)."""
    return np.asarray(((lines[:, None] == gold) & (gold != NONE)).any(axis=1))


def best_threshold(scores: Floats, right: npt.NDArray[np.bool_], gold: int) -> float:
    """The score from which on pairs are said, so that F1 is highest; the higher one of equally good ones.

    Midway between the last pair said and the first one not said. 0 where no pair is right.

    Args:
        scores: shape (pairs,), at least 0.
        right: shape (pairs,).
        gold: how many pairs there are to be found.

    >>> best_threshold(np.array([1.0, 2.0, 4.0]), np.array([False, True, True]), 2)
    1.5

    Source: XTREME, ``bucc_optimize``, after Artetxe and Schwenk 2019. Pairs of equal scores are not torn apart here.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, found = scores[order], np.cumsum(right[order])
    if not right.any():
        return 0.0
    following = np.append(ranked[1:], ranked[-1])
    f1 = 2 * found / (np.arange(1, len(ranked) + 1) + gold)
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0
    last = int(f1.argmax())
    return float((ranked[last] + following[last]) / 2)


def mining_f1(items: Items) -> float:
    """F1 of mined pairs, the threshold chosen on these pairs themselves; it stays as it is in a part of them."""
    return f1_of(*items[:, 1:4].sum(axis=0))


def mining_f1_dev(items: Items) -> float:
    """F1 of mined pairs, the threshold chosen on dev pairs."""
    return f1_of(*items[:, 4:7].sum(axis=0))


def bitext_f1(items: Items) -> float:
    """F1 of each translation's line as a class, weighted by how often it is gold. NaN where no sentence has one.

    Each sentence that has a translation asks for its nearest neighbour.

    >>> bitext_f1(np.array([[np.nan] * 7 + [3.0, 3.0], [np.nan] * 7 + [3.0, 4.0]]))
    0.3333333333333333

    Source: Muennighoff et al. 2023 (MTEB), bitext mining.
    """
    said, gold = items[~np.isnan(items[:, 8]), 7:].T
    if not len(gold):
        return math.nan
    lines, codes = np.unique(np.concatenate([said, gold]), return_inverse=True)
    size, (of_said, of_gold) = len(lines), np.split(codes, 2)
    support = np.bincount(of_gold, minlength=size)
    both = np.bincount(of_gold[said == gold], minlength=size)
    return float((support * 2 * both / (support + np.bincount(of_said, minlength=size))).sum() / len(gold))


def hit(items: Items) -> Floats:
    """1 for each sentence that is its translation's nearest neighbour, else 0; NaN where that is not asked."""
    return items[:, 0]


def nothing_wrong(items: Items) -> Floats:
    """1 for each sentence that is its translation's nearest neighbour, else 0.

    Where pairs are mined: 1 where none of the sentence's is wrongly said or missed.
    """
    hits, wrong = items[:, 0], items[:, 2] + items[:, 3]
    return np.asarray(np.where(np.isnan(hits), wrong == 0, hits == 1), dtype=np.float64)


METRICS = {
    "retrieval_accuracy": mean_of("retrieval accuracy", hit),
    "mining_f1": Metric("mining F1 (threshold best on gold)", mining_f1),
    "mining_f1_dev": Metric("mining F1 (threshold chosen on dev)", mining_f1_dev),
    "bitext_f1": Metric("bitext F1 (nearest neighbour, weighted)", bitext_f1),
}


def _counts(said: Floats, right: npt.NDArray[np.bool_], gold: npt.NDArray[np.int64]) -> Floats:
    """Pairs found, wrongly said and missed of each sentence; NaN where none could be said."""
    found = said * right
    return np.column_stack([found, said - found, gold - found])
