"""What a search for translations answers: one row of numbers a foreign sentence, from vectors of all sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from noisytune._metrics.retrieval import NONE, best_threshold, is_right
from noisytune.lab.kinds.bitext import ENGLISH, FOREIGN
from noisytune.lab.kinds.columns import Floats, Ragged, TokenSplit
from noisytune.lab.kinds.mining import NEIGHBOURS, mine
from noisytune.lab.kinds.neighbours import neighbours, unit

LINES = "lines"
"""The note of each sentence: its line on its side, and the first line with the same text there, counted from 0."""


@dataclass(frozen=True)
class Entries:
    """The sentences of one side, equal ones together."""

    lines: npt.NDArray[np.int64]
    """Of each sentence."""
    entry: npt.NDArray[np.int64]
    """Of each sentence."""
    rows: npt.NDArray[np.int64]
    """Of each entry the row of its first sentence."""
    first: npt.NDArray[np.int64]
    """Of each entry the line of its first sentence."""
    alone: npt.NDArray[np.bool_]
    """Of each entry whether it is a single sentence."""

    @classmethod
    def of(cls, data: TokenSplit, side: float) -> Self:
        """Those of a split."""
        rows = np.flatnonzero(_sides(data) == side)
        notes = data.notes[LINES]
        own, same = notes.values[notes.starts[:-1][rows, None] + [0, 1]].T
        first, at, entry, count = np.unique(same, return_index=True, return_inverse=True, return_counts=True)
        return cls(own, entry, rows[at], first, count == 1)


def references_of(data: TokenSplit) -> Floats:
    """The lines of each foreign sentence's translations, shape (foreign sentences, most); filled up with `NONE`."""
    targets: Any = data.targets
    gold = [targets[int(row)][1:] for row in np.flatnonzero(_sides(data) == FOREIGN)]
    table = np.full((len(gold), max(map(len, gold), default=1) or 1), NONE)
    for row, lines in zip(table, gold, strict=True):
        row[: len(lines)] = lines
    return table


def lines_of(data: TokenSplit) -> Floats:
    """The line of each foreign sentence."""
    return Entries.of(data, FOREIGN).lines.astype(np.float64)


def answers_of(vectors: npt.ArrayLike, data: TokenSplit) -> Floats:
    """What the nearest neighbours say of each foreign sentence.

    Args:
        vectors: shape (sentences, width), finite.
        data: what they are of.

    Returns:
        Shape (foreign sentences, 4). Where each sentence has one translation on the other side: the line of the
        translation's nearest neighbour. Else: the line of the English sentence that it is paired with (`NONE`: none),
        and the pair's margin. Always: the line of its own nearest neighbour. NaN in what does not apply.
    """
    table = np.asarray(vectors)
    foreign, english = (Entries.of(data, side) for side in (FOREIGN, ENGLISH))
    found = np.full((len(foreign.lines), 4), math.nan)
    if not (len(foreign.rows) and len(english.rows)):
        found[:, [1, 3]] = NONE
        return found
    there, back = neighbours(unit(table[foreign.rows]), unit(table[english.rows]), NEIGHBOURS)
    found[:, 3] = english.first[there.places[foreign.entry, 0]]
    gold = references_of(data)
    if gold.shape[1] == 1 and np.array_equal(np.sort(gold[:, 0]), np.sort(english.lines)):
        order = np.argsort(english.lines)
        translation = order[np.searchsorted(english.lines, gold[:, 0], sorter=order)]
        found[:, 0] = foreign.first[back.places[english.entry[translation], 0]]
        return found
    partners, margins = mine(there, back)
    partner = partners[foreign.entry]
    paired = (partner >= 0) & foreign.alone[foreign.entry] & english.alone[partner]
    found[:, 1] = np.where(paired, english.first[partner], NONE)
    found[:, 2] = np.where(paired, margins[foreign.entry], math.nan)
    return found


def threshold_of(answers: Floats, gold: Floats) -> float:
    """The margin from which on pairs are said, so that F1 is highest; NaN where nothing was mined.

    Args:
        answers: of `answers_of`.
        gold: of `references_of`.
    """
    mined, margins = answers[:, 1], answers[:, 2]
    if np.isnan(mined).any():
        return math.nan
    paired = mined != NONE
    return best_threshold(margins[paired], is_right(mined, gold)[paired], int((gold != NONE).sum()))


def said_by(answers: Floats, threshold: float, elsewhere: float) -> Floats:
    """The answers as `noisytune._metrics.retrieval.retrieval_items` takes them, shape (foreign sentences, 5).

    Args:
        answers: of `answers_of`.
        threshold: `threshold_of` them.
        elsewhere: that of another split; NaN for none.
    """
    back, mined, margins, nearest = answers.T
    said = [np.where(math.isnan(one), math.nan, margins >= one) for one in (threshold, elsewhere)]
    return np.column_stack([back, mined, *said, nearest])


def _sides(data: TokenSplit) -> Floats:
    targets = data.targets
    if not isinstance(targets, Ragged):
        raise TypeError("targets of retrieval are rows of numbers")
    return np.asarray(targets.values[targets.starts[:-1]])
