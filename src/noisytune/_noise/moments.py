"""Standard deviations from mergeable moments, so that shards, chunks and threads give the same scale.

A tensor is cut into blocks of 65,536 elements in row-major order. Each block has (n, mean, M2) in float64, M2 = the sum
of squared deviations from the block's mean. Blocks are merged pairwise.

Source: Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", The American Statistician 37(3).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BLOCK = 65_536
"""Elements in a block."""
_FEW = 64
"""So many blocks are merged as fast one by one as in arrays."""


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of some numbers."""

    n: int
    mean: float
    m2: float

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1), as torch.std's; NaN for fewer than two numbers."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else math.nan

    @property
    def is_constant(self) -> bool:
        """All numbers are equal. Exact: a block's deviations are taken from its first element before they are from its
        mean."""
        return self.m2 == 0

    @property
    def is_finite(self) -> bool:
        """No NaN and no infinity among the numbers."""
        return math.isfinite(self.mean) and math.isfinite(self.m2)


EMPTY = Moments(0, 0.0, 0.0)


def of(values: npt.NDArray[Any]) -> Moments:
    """The moments of an array of any floating dtype: the plain reference for the compiled kernel.

    >>> of(np.array([1.0, 2.0, 3.0, 4.0])).std
    1.2909944487358056
    """
    flat = values.reshape(-1)
    return merge([_of_block(flat[start : start + BLOCK]) for start in range(0, flat.size, BLOCK)])


def _of_block(values: npt.NDArray[Any]) -> Moments:
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = wide[0] + float(np.mean(wide - wide[0]))
        return Moments(wide.size, float(mean), float(np.sum((wide - mean) ** 2)))


def merge(parts: list[Moments]) -> Moments:
    """The moments of everything in ``parts``, merged pairwise: neighbours first, then neighbouring pairs, and so on."""
    while len(parts) > 1:
        pairs = [_merge_two(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
    return parts[0] if parts else EMPTY


def of_blocks(size: int, means: npt.NDArray[np.float64], m2s: npt.NDArray[np.float64]) -> Moments:
    """The moments of so many numbers from those of their blocks: to the bit what `merge` makes of these.

    A billion numbers have 15,000 blocks, which are merged as arrays while they are many.

    Args:
        size: how many numbers, >= 1.
        means: of the blocks, shape (blocks,); all but the last are whole.
        m2s: their sums of squared deviations, likewise.

    >>> of_blocks(3, np.array([2.0]), np.array([2.0]))
    Moments(n=3, mean=2.0, m2=2.0)
    """
    counts = np.full(means.size, float(BLOCK))
    counts[-1] = size - (means.size - 1) * BLOCK
    with np.errstate(invalid="ignore", over="ignore"):
        while means.size > _FEW:
            pairs = slice(0, means.size // 2 * 2, 2), slice(1, None, 2)
            (a_n, b_n), (a_mean, b_mean), (a_m2, b_m2) = ([each[x] for x in pairs] for each in (counts, means, m2s))
            n, delta = a_n + b_n, b_mean - a_mean
            merged = n, a_mean + delta * (b_n / n), a_m2 + b_m2 + delta * delta * (a_n * b_n / n)
            rest = slice(2 * n.size, None)
            counts, means, m2s = (
                np.append(new, old[rest]) for new, old in zip(merged, (counts, means, m2s), strict=True)
            )
    return merge(list(map(Moments, map(int, counts), means.tolist(), m2s.tolist())))


def _merge_two(a: Moments, b: Moments) -> Moments:
    n = a.n + b.n
    if n == 0:
        return EMPTY
    delta = b.mean - a.mean
    return Moments(n, a.mean + delta * (b.n / n), a.m2 + b.m2 + delta * delta * (a.n * b.n / n))
