"""Pairs of sentences that translate each other, mined by margin from nearest neighbours.

Source: Artetxe and Schwenk 2019, "Margin-based Parallel Corpus Mining with Multilingual Sentence Embeddings", as XTREME
runs it for BUCC.
"""

from __future__ import annotations

import numpy as np

from noisytune.lab.kinds.columns import Floats
from noisytune.lab.kinds.neighbours import Nearest, Places

NEIGHBOURS = 4
"""How many neighbours tell how close a sentence lies to the other side at all."""


def mine(there: Nearest, back: Nearest) -> tuple[Places, Floats]:
    """Pair each sentence with at most one of the other side.

    Each sentence names the neighbour with the largest margin; of all that are named, the pair with the largest margin
    is taken as long as neither of its sentences has been taken.

    Args:
        there: of each sentence its nearest ones on the other side, at most `NEIGHBOURS`.
        back: the same from the other side.

    Returns:
        Of each sentence the place of its partner (-1: none), and the pair's margin (NaN: none). Shape (sentences,).
    """
    closeness = there.similarities.mean(axis=1, dtype=np.float64), back.similarities.mean(axis=1, dtype=np.float64)
    named, margins = _best(there, *closeness)
    naming, other_margins = _best(back, *closeness[::-1])
    one = np.concatenate([np.arange(len(named)), naming])
    other = np.concatenate([named, np.arange(len(naming))])
    scores = np.concatenate([margins, other_margins])
    partners, found = np.full(len(named), -1), np.full(len(named), np.nan)
    free_one, free_other = [True] * len(named), [True] * len(naming)
    for i in np.argsort(-scores, kind="stable"):
        a, b = int(one[i]), int(other[i])
        if scores[i] > 0 and free_one[a] and free_other[b]:
            free_one[a] = free_other[b] = False
            partners[a], found[a] = b, scores[i]
    return partners, found


def margins(nearest: Nearest, mine: Floats, theirs: Floats) -> Floats:
    """Similarity divided by how close both sentences lie to the other side, s / ((mean + mean) / 2).

    Args:
        nearest: shape (sentences, k).
        mine: mean similarity of each sentence to its neighbours.
        theirs: the same of the other side's sentences.

    Returns:
        Shape (sentences, k). 0, which is never mined, where that closeness is not positive: a ratio says nothing there.
    """
    closeness = (mine[:, None] + theirs[nearest.places]) / 2
    ratio = np.zeros_like(closeness)
    return np.divide(nearest.similarities, closeness, out=ratio, where=closeness > 0)


def _best(nearest: Nearest, mine: Floats, theirs: Floats) -> tuple[Places, Floats]:
    """The neighbour with the largest margin, and that margin."""
    found = margins(nearest, mine, theirs)
    best = found.argmax(axis=1)[:, None]
    return np.take_along_axis(nearest.places, best, 1)[:, 0], np.take_along_axis(found, best, 1)[:, 0]
