"""Measures of predicted values. Items: prediction and reference."""

from __future__ import annotations

import math

import numpy as np

from noisytune._metrics.metric import Floats, Items, Metric


def pearson(items: Items) -> float:
    """Pearson correlation; NaN where either side is constant or not finite, or with fewer than two examples."""
    if not _correlates(items):
        return math.nan
    gold, predicted = _centred(items[:, 1]), _centred(items[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        found = float(np.clip(np.vecdot(gold, predicted), -1.0, 1.0))
    # Two points lie on a line.
    return float(np.round(found)) if len(items) == 2 else found


def spearman(items: Items) -> float:
    """Pearson correlation of the ranks; NaN as for `pearson`."""
    if not _correlates(items):
        return math.nan
    return float(np.corrcoef(_ranks(items[:, 1]), _ranks(items[:, 0]))[1, 0])


def r2(items: Items) -> float:
    """Share of the references' variance that is explained, below 0 for predictions worse than the mean.

    NaN where the references are constant or a value is not finite.
    """
    predicted, gold = items[:, 0], items[:, 1]
    if not np.isfinite(items).all() or (gold == gold[0]).all():
        return math.nan
    with np.errstate(over="ignore", invalid="ignore"):
        return float(1 - ((gold - predicted) ** 2).sum() / ((gold - np.average(gold)) ** 2).sum())


METRICS = {
    "pearson": Metric("Pearson correlation", pearson),
    "spearman": Metric("Spearman correlation", spearman),
    "r2": Metric("R²", r2),
}


def _centred(values: Floats) -> Floats:
    """Mean 0 and length 1, scaled on the way so that no finite value overflows."""
    values = np.ascontiguousarray(values)
    away = values - values.mean()
    largest = np.abs(away).max()
    with np.errstate(invalid="ignore", divide="ignore"):
        # Norms along an axis add pairwise, as SciPy's correlation does: the same to the last bit.
        return np.asarray(away / (largest * np.linalg.norm(away / largest, axis=-1)))


def _ranks(values: Floats) -> Floats:
    """From 1; equal values share the mean of their places.

    >>> _ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def _correlates(items: Items) -> bool:
    """Whether a correlation is defined."""
    return bool(np.isfinite(items).all() and (items != items[0]).any(axis=0).all())
