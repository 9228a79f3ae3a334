"""What do the single predictions show? McNemar's test for one pair of runs, a bootstrap over seeds and examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from noisytune.report.statistics.paired import Floats, Interval

Metric = Callable[[Floats, Floats], float]
"""``metric(predictions, references)``, each of shape (examples,), higher is better, as a fraction."""


@dataclass(frozen=True)
class McNemar:
    """One pair of runs on the same examples."""

    gained: int
    """Examples that only the arm gets right."""
    lost: int
    """Examples that only the baseline gets right."""
    p: float
    """Exact two-sided p: is a changed example as likely gained as lost?"""


@dataclass(frozen=True)
class Bootstrap:
    """A percentile interval of the mean difference, points."""

    mean: float
    interval: Interval
    resamples: int


def accuracy(predictions: Floats, references: Floats) -> float:
    """Share of examples predicted exactly."""
    return float((predictions == references).mean())


def pearson(predictions: Floats, references: Floats) -> float:
    """Pearson correlation; 0 where either side is constant."""
    x, y = predictions - predictions.mean(), references - references.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0.0 else 0.0


def spearman(predictions: Floats, references: Floats) -> float:
    """Pearson correlation of the ranks."""
    return pearson(stats.rankdata(predictions), stats.rankdata(references))


def _confusion(predictions: Floats, references: Floats) -> Floats:
    labels, codes = np.unique(np.concatenate([predictions, references]), return_inverse=True)
    predicted, gold = np.split(codes, 2)
    return np.bincount(gold * labels.size + predicted, minlength=labels.size**2).reshape(labels.size, -1).astype(float)


def matthews(predictions: Floats, references: Floats) -> float:
    """Matthews correlation for any number of classes; 0 where either side is constant."""
    table = _confusion(predictions, references)
    gold, predicted, n = table.sum(axis=1), table.sum(axis=0), table.sum()
    scale = float(np.sqrt((n**2 - predicted @ predicted) * (n**2 - gold @ gold)))
    return float(np.trace(table) * n - predicted @ gold) / scale if scale > 0.0 else 0.0


def macro_f1(predictions: Floats, references: Floats) -> float:
    """Mean F1 over the classes that occur among predictions or references."""
    table = _confusion(predictions, references)
    return float((2 * np.diag(table) / (table.sum(axis=0) + table.sum(axis=1))).mean())


def f1(predictions: Floats, references: Floats) -> float:
    """F1 of class 1; 0 where it occurs neither among predictions nor references."""
    both = int((predictions == 1).sum() + (references == 1).sum())
    return 2 * int(((predictions == 1) & (references == 1)).sum()) / both if both else 0.0


def r2(predictions: Floats, references: Floats) -> float:
    """Share of the references' variance that is explained; 0 where they are constant."""
    total = float(((references - references.mean()) ** 2).sum())
    return 1.0 - float(((references - predictions) ** 2).sum()) / total if total > 0.0 else 0.0


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "pearson": pearson,
    "spearman": spearman,
    "matthews": matthews,
    "macro_f1": macro_f1,
    "f1": f1,
    "r2": r2,
}
"""Primary metrics that can be recomputed from the predictions of a record."""


def mcnemar(baseline: npt.ArrayLike, arm: npt.ArrayLike, references: npt.ArrayLike) -> McNemar:
    """McNemar's exact test on two runs' predicted classes.

    Args:
        baseline: shape (examples,), predicted classes.
        arm: the same for the arm.
        references: gold classes.

    >>> mcnemar([0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0])
    McNemar(gained=2, lost=1, p=1.0)
    """
    before, after = np.asarray(baseline) == np.asarray(references), np.asarray(arm) == np.asarray(references)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(gained, lost, p)


def hierarchical_bootstrap(
    baseline: npt.ArrayLike,
    arm: npt.ArrayLike,
    references: npt.ArrayLike,
    metric: Metric = accuracy,
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Bootstrap:
    """Percentile interval of the mean paired difference over redrawn seeds and redrawn examples.

    All seeds are scored on the same examples, so one draw of examples serves all the seeds of a resample: drawing them
    anew for each seed would average the choice of examples away. With few seeds such an interval is too narrow.

    Args:
        baseline: shape (seeds, examples), predictions.
        arm: the same for the arm.
        references: shape (examples,), gold classes or values.
        metric: recomputed in every resample; `accuracy` by counting, which is quick.
        seed: of the resampling.
        resamples: how many.
        level: of the interval.

    Returns:
        Mean difference on the data as they are, and the interval, in points.
    """
    before, after = np.asarray(baseline, dtype=np.float64), np.asarray(arm, dtype=np.float64)
    gold = np.asarray(references, dtype=np.float64)
    seeds, examples = before.shape
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, seeds, (resamples, seeds))
    gain = (after == gold).astype(np.float64) - (before == gold)
    by_seed = np.zeros((resamples, seeds))
    for r in range(resamples):
        row = rng.integers(0, examples, examples)
        if metric is accuracy:
            by_seed[r] = gain @ np.bincount(row, minlength=examples) / examples
        else:
            for s in set(drawn[r].tolist()):
                by_seed[r, s] = metric(after[s, row], gold[row]) - metric(before[s, row], gold[row])
    means = 100.0 * np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    whole = np.mean([metric(a, gold) - metric(b, gold) for b, a in zip(before, after, strict=True)])
    return Bootstrap(100.0 * float(whole), Interval(float(low), float(high)), resamples)
