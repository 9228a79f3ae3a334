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


def _merge_two(a: Moments, b: Moments) -> Moments:
    n = a.n + b.n
    if n == 0:
        return EMPTY
    delta = b.mean - a.mean
    return Moments(n, a.mean + delta * (b.n / n), a.m2 + b.m2 + delta * delta * (a.n * b.n / n))
