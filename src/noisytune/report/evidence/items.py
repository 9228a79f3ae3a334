"""What do the single predictions show? McNemar's test for one pair of runs, a bootstrap over seeds and examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import signal, stats

from noisytune._metrics import Items, Metric
from noisytune.records import TrialRecord
from noisytune.report.statistics.intervals import Interval


@dataclass(frozen=True)
class McNemar:
    """One pair of runs on the same examples."""

    gained: int
    """Examples that only the arm gets right."""
    lost: int
    """Examples that only the baseline gets right."""
    p: float
    """Exact two-sided p: is a changed example, or group of them, as likely gained as lost?"""


@dataclass(frozen=True)
class Bootstrap:
    """A percentile interval of the mean difference, points."""

    mean: float
    interval: Interval
    resamples: int


def items_of(record: TrialRecord) -> Items:
    """A trial's items on the split that its primary score rests on; empty where it has none.

    A score that rests on several splits has none: one of them would stand for all.

    Kinds whose items are predictions and references beside each other do not keep them a third time.
    """
    if len(record.primary) > 1:
        return np.empty((0, 2))
    kept = record.outputs.get(f"{record.split}/items")
    if kept is not None:
        return np.asarray(kept)
    fits = len(record.predictions) == len(record.references) > 0
    return np.column_stack([record.predictions, record.references]) if fits else np.empty((0, 2))


def read_as(task: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and metric of a task's items: its own, unless a script of the user's scores and its predictions are shown
    beside that.

    Args:
        task: its entry in the study.
    """
    items = task.get("items") or {}
    return str(items.get("kind", task["kind"])), str(items.get("metric", task["metric"]))


def groups_of(record: TrialRecord) -> npt.NDArray[np.int64] | None:
    """What each of `items_of` belongs to; None where each stands by itself."""
    kept = record.outputs.get(f"{record.split}/groups")
    return None if kept is None else np.asarray(kept).reshape(-1)


def mcnemar(baseline: npt.ArrayLike, arm: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> McNemar:
    """McNemar's exact test on two runs' right and wrong examples.

    Where examples hang together, each group is one coin: the gains of a group change sign together. Groups of one
    example give McNemar's test itself.

    Args:
        baseline: shape (examples,), whether each is right.
        arm: the same for the arm.
        groups: shape (examples,), what each example belongs to; None: each stands for itself.

    >>> mcnemar([1, 0, 0, 1], [1, 1, 1, 0])
    McNemar(gained=2, lost=1, p=1.0)
    >>> [round(mcnemar([0] * 8, [1] * 8, groups).p, 4) for groups in (None, [1, 1, 1, 1, 2, 2, 2, 2])]
    [0.0078, 0.5]
    """
    before, after = np.asarray(baseline, dtype=bool), np.asarray(arm, dtype=bool)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    place = np.arange(len(before)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    net = np.bincount(place, weights=after.astype(np.float64) - before).astype(np.int64)
    return McNemar(gained, lost, _sign_flip_p(net))


def _sign_flip_p(net: npt.NDArray[np.int64]) -> float:
    """How probable a sum at least as far from 0 is where each number has the sign of a fair coin."""
    sizes, counts = np.unique(np.abs(net[net != 0]), return_counts=True)
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = signal.convolve(chances, steps)
    sums = np.abs(np.arange(len(chances)) - len(chances) // 2)
    return min(1.0, float(chances[sums >= abs(int(net.sum()))].sum()))


def hierarchical_bootstrap(
    baseline: npt.ArrayLike,
    arm: npt.ArrayLike,
    metric: Metric,
    *,
    seed: int,
    groups: npt.ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> Bootstrap:
    """Percentile interval of the mean paired difference over redrawn seeds and redrawn examples.

    All seeds are scored on the same examples, so one draw of examples serves all the seeds of a resample: drawing them
    anew for each seed would average the choice of examples away. With few seeds such an interval is too narrow.

    Args:
        baseline: shape (seeds, examples, k), items.
        arm: the same for the arm.
        metric: recomputed in every resample, where an undefined score counts as 0; a mean over examples by counting,
            which is quick.
        seed: of the resampling.
        groups: shape (examples,), what each example belongs to: a document, a speaker. Examples of a group hang
            together, so that whole groups are redrawn; None: each example by itself.
        resamples: how many.
        level: of the interval.

    Returns:
        Mean difference on the data as they are, and the interval, in points; above 0 the arm is better.
    """
    before, after = np.asarray(baseline, dtype=np.float64), np.asarray(arm, dtype=np.float64)
    better = -1.0 if metric.lower_is_better else 1.0
    seeds, examples = before.shape[:2]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, seeds, (resamples, seeds))
    each = metric.each
    gain = np.stack([each(a) - each(b) for b, a in zip(before, after, strict=True)]) if each else None
    by_seed = np.zeros((resamples, seeds))
    members = _members(groups) if groups is not None else None
    for r in range(resamples):
        row = np.asarray(rng.integers(0, examples, examples))
        if members is not None:
            row = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        if gain is not None:
            by_seed[r] = gain @ np.bincount(row, minlength=examples) / row.size
        else:
            for s in set(drawn[r].tolist()):
                by_seed[r, s] = _defined(metric, after[s, row]) - _defined(metric, before[s, row])
    means = 100.0 * better * np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    whole = np.mean([_defined(metric, a) - _defined(metric, b) for b, a in zip(before, after, strict=True)])
    return Bootstrap(100.0 * better * float(whole), Interval(float(low), float(high)), resamples)


def _members(groups: npt.ArrayLike) -> list[npt.NDArray[np.int64]]:
    """The examples of each group."""
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    return [np.flatnonzero(place == i) for i in range(int(place.max()) + 1)]


def _defined(metric: Metric, items: Items) -> float:
    found = metric.of(items)
    return found if math.isfinite(found) else 0.0
