"""The nearest neighbours of many vectors among many others, both ways at once, in little memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Singles = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

BLOCK = 1024
"""Vectors of one side times vectors of the other: a block of similarities stays in the processor's cache."""


@dataclass(frozen=True)
class Nearest:
    """Of each vector its nearest ones of the other side, the nearest first; of equally near ones the first."""

    similarities: Singles
    """Shape (vectors, k)."""
    places: Places
    """Shape (vectors, k)."""

    @classmethod
    def empty(cls, vectors: int, k: int) -> Self:
        """None found yet."""
        return cls(np.full((vectors, k), -np.inf, np.float32), np.full((vectors, k), -1))


def unit(vectors: npt.ArrayLike) -> Singles:
    """Vectors of length 1; a vector of zeros stays as it is.

    Args:
        vectors: shape (vectors, width).
    """
    found = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(lengths > 0, lengths, 1))


def neighbours(one: Singles, other: Singles, k: int, block: int = BLOCK) -> tuple[Nearest, Nearest]:
    """The ``k`` nearest ones by dot product, of each vector of either side among those of the other.

    Each block of the product serves both directions. Only what is nearer than the ``k`` nearest so far is looked at.

    Args:
        one: shape (vectors, width), at least one; for cosines of length 1.
        other: shape (vectors, width), at least one.
        k: at least 1; a smaller side gives as many as it has.
        block: vectors of either side in a block, at least ``k``.

    Returns:
        Of ``one`` among ``other``, of ``other`` among ``one``.

    >>> there, back = neighbours(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[2, 0]], 1)
    >>> there.places.ravel().tolist(), back.places.ravel().tolist()
    ([1, 0, 0], [2, 0])
    """
    there = Nearest.empty(len(one), min(k, len(other)))
    back = Nearest.empty(len(other), min(k, len(one)))
    for row in range(0, len(one), block):
        for column in range(0, len(other), block):
            rows, columns = slice(row, row + block), slice(column, column + block)
            similarities = one[rows] @ other[columns].T
            _keep(there, rows, similarities, column)
            _keep(back, columns, similarities.T, row)
    return there, back


def _keep(nearest: Nearest, rows: slice, block: Any, first: int) -> None:
    """Take over what is nearer in a block, in place.

    Args:
        nearest: so far.
        rows: whose similarities these are.
        block: shape (rows, columns).
        first: the place of the first column.
    """
    values, places = nearest.similarities[rows], nearest.places[rows]
    k = values.shape[1]
    fresh = first == 0
    nearer = block >= np.partition(block, -k, axis=1)[:, [-k]] if fresh else block > values[:, -1:]
    # In the order of memory: a mask that is read across its columns costs ten times as much.
    found, shape = np.flatnonzero(nearer.ravel("K")), nearer.shape
    row, column = np.divmod(found, shape[1]) if nearer.flags.c_contiguous else np.divmod(found, shape[0])[::-1]
    touched, owner = np.unique(row, return_inverse=True)
    all_owners = np.concatenate([np.repeat(np.arange(len(touched)), k), owner])
    all_values = np.concatenate([values[touched].ravel(), block[row, column]])
    all_places = np.concatenate([places[touched].ravel(), column + first])
    ranked = np.lexsort((all_places, -all_values, all_owners))
    starts = np.searchsorted(all_owners[ranked], np.arange(len(touched)))
    chosen = ranked[starts[:, None] + np.arange(k)]
    values[touched], places[touched] = all_values[chosen], all_places[chosen]
