"""Where do differences depart from normal ones, which the intervals are for? Ties and outliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

OUTLIER_FROM = 8
"""Pairs from which `has_outlier` looks: the median absolute deviation of fewer is too unsteady."""
OUTLIER_SCALES = 6.0
SAME = 1e-9
"""Differences are equal within this share of the largest one."""


def distinct_pairs(differences: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Pairs after each pair, with the most common difference counted twice at most, and once if there is no other.

    Twice, because rounded scores often agree by chance in one pair or another. Three of five or nine of ten equal
    differences hint at jumps that are yet to come, which their small spread does not know of.

    Args:
        differences: shape (..., n), points.

    Returns:
        The same shape.

    >>> distinct_pairs([0.0, 0.0, 1.5, 0.0, 0.5]).tolist()
    [1, 1, 3, 3, 4]
    """
    values = np.asarray(differences, dtype=np.float64)
    n = np.arange(1, values.shape[-1] + 1, dtype=np.int64)
    tolerance = SAME * np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    alike = np.zeros(values.shape, dtype=np.int64)
    for i in range(n.size):
        alike[..., i] = (np.abs(values[..., : i + 1] - values[..., i : i + 1]) <= tolerance).sum(axis=-1)
    most = np.maximum.accumulate(alike, axis=-1)
    distinct: npt.NDArray[np.int64] = np.where(most == n, 1, n - np.maximum(most - 2, 0))
    return distinct


def has_outlier(differences: npt.ArrayLike) -> bool:
    """Whether a difference lies more than 6 scaled median absolute deviations from the median, from 8 pairs on.

    Never where that deviation is 0, as where more than half of the differences tie.

    >>> has_outlier([0.1, 0.5, -0.3, 0.2, 0.4, -0.1, 0.3, -20.0])
    True
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size < OUTLIER_FROM:
        return False
    away = np.abs(values - np.median(values))
    scale = float(np.median(away) / stats.norm.ppf(0.75))  # the standard deviation, were they normal
    return scale > SAME * float(np.abs(values).max()) and bool((away > OUTLIER_SCALES * scale).any())
