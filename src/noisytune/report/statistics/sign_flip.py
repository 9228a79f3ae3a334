"""Are baseline and arm exchangeable within a pair? The sign-flip test, exact or by random flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noisytune.report.statistics.intervals import Floats, finite

EXACT_UP_TO = 20
"""Non-zero differences up to which every flip is counted."""
MONTE_CARLO_FLIPS = 99_999
_AT_ONCE = 4_000_000
"""Signs that are held as floats at a time: 32 MB."""


@dataclass(frozen=True)
class SignFlip:
    """A sign-flip test: how many of the flips give a mean at least as far from 0."""

    p: float
    exact: bool
    flips: int
    """Flips looked at: all of them where exact, else drawn at random."""


def sign_flip(differences: npt.ArrayLike, seed: int = 0) -> SignFlip:
    """Two-sided sign-flip test of "arm and baseline are exchangeable within a pair".

    Exact up to `EXACT_UP_TO` non-zero differences, beyond that by Monte Carlo (the observed one counted in).

    Args:
        differences: shape (n,).
        seed: of the random flips.

    >>> sign_flip([0.2, 0.1, 0.4, 0.3, 0.2]).p
    0.0625
    """
    return sign_flips([differences], seed)[0]


def sign_flips(comparisons: Sequence[npt.ArrayLike], seed: int = 0, flips: int = MONTE_CARLO_FLIPS) -> list[SignFlip]:
    """`sign_flip` of each of many comparisons; the random flips are drawn once for all.

    Args:
        comparisons: each of shape (n,), with an n of its own.
        seed: of the random flips.
        flips: how many are drawn where not all are looked at.
    """
    kept = [values[values != 0.0] for values in map(finite, comparisons)]
    many = [i for i, values in enumerate(kept) if values.size > EXACT_UP_TO]
    drawn = dict(zip(many, _drawn([kept[i] for i in many], seed, flips), strict=True))
    return [drawn.get(i) or _exact(values) for i, values in enumerate(kept)]


def _reached(values: Floats) -> float:
    """Size of the observed sum, a little less: sums that are equal on paper may differ in the last bit."""
    return abs(float(values.sum())) - 1e-9 * float(np.abs(values).sum())


def _sums(values: Floats) -> Floats:
    """Of every choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _exact(values: Floats) -> SignFlip:
    """By two halves: the sums of one are looked up among the sorted sums of the other."""
    reached = _reached(values)
    if reached <= 0.0:
        return SignFlip(1.0, True, 2**values.size)
    some, others = _sums(values[::2]), np.sort(_sums(values[1::2]))
    above = others.size - np.searchsorted(others, reached - some, side="left")
    below = np.searchsorted(others, -reached - some, side="right")
    return SignFlip(float((above + below).sum()) / 2**values.size, True, 2**values.size)


def _drawn(comparisons: list[Floats], seed: int, flips: int) -> list[SignFlip]:
    """A longer comparison takes the signs of a shorter one and more, so that none depends on its company."""
    if not comparisons:
        return []
    longest = max(values.size for values in comparisons)
    padded = np.stack([np.pad(values, (0, longest - values.size)) for values in comparisons])
    reached = np.array([[_reached(values)] for values in comparisons])
    signs = np.random.default_rng(seed).integers(0, 256, (longest, flips // 8 + 1), dtype=np.uint8)
    width = max(1, _AT_ONCE // longest // 8)
    hits = np.zeros(len(comparisons), dtype=np.int64)
    for first in range(0, signs.shape[1], width):
        bits = np.unpackbits(signs[:, first : first + width], axis=1)[:, : flips - 8 * first]
        sums = 2.0 * (padded @ bits.astype(np.float64)) - padded.sum(axis=1, keepdims=True)
        hits += (np.abs(sums) >= reached).sum(axis=1)
    return [SignFlip((1 + int(hit)) / (1 + flips), False, flips) for hit in hits]
