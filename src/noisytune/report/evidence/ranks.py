"""Which place does each arm take over many tasks? Average ranks, with an interval over tasks and seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from noisytune._metrics import direction
from noisytune.report.evidence.pairs import Evidence, once
from noisytune.report.statistics.intervals import Floats, Interval

FROM = 5
"""Tasks from which on ranks are averaged: of fewer, a bootstrap over tasks knows too little."""
RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True)
class Rank:
    """One arm's, 1 is the best."""

    arm: str
    mean: float
    interval: Interval
    """Percentile 95 % interval over redrawn tasks and seeds."""


@dataclass(frozen=True)
class RankTable:
    """All arms that are judged, and over how many tasks."""

    tasks: int
    seeds: int
    """Of which every arm has every task done."""
    ranks: tuple[Rank, ...]
    """The baseline first."""


@once
def rank_table(evidence: Evidence) -> RankTable | None:
    """Average ranks of the arms' mean scores; None below `FROM` tasks, or without a seed that is complete.

    Within a task the arms are ranked by their mean over the seeds; equal means share a rank. Ranks say who is ahead,
    never by how much: no verdict rests on them.

    Source: Demšar 2006, "Statistical comparisons of classifiers over multiple data sets".
    """
    tasks, arms = [task["name"] for task in evidence.study.tasks], (evidence.study.arms[0], *evidence.begun)
    better = {task["name"]: direction(task["kind"], task["metric"]) for task in evidence.study.tasks}
    scores = {(r.task, r.arm, r.seed): better[r.task] * evidence.score(r) for r in evidence.trials.values()}
    seeds = [s for s in evidence.study.seeds if all((task, arm, s) in scores for task in tasks for arm in arms)]
    if len(tasks) < FROM or len(arms) < 2 or not seeds:
        return None
    table = np.array([[[scores[task, arm, seed] for arm in arms] for seed in seeds] for task in tasks])
    rng, n = np.random.default_rng(SEED), len(tasks)
    some = rng.integers(0, n, (RESAMPLES, n))
    drawn = rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))
    times = (drawn[:, :, None] == np.arange(len(seeds))).sum(axis=1)
    means = np.einsum("tsa,rs->rta", table, times) / len(seeds)
    ends = np.quantile(_average(np.take_along_axis(means, some[:, :, None], axis=1)), [0.025, 0.975], axis=0).T
    found = zip(arms, _average(table.mean(axis=1)), ends, strict=True)
    return RankTable(
        n, len(seeds), tuple(Rank(arm, float(mean), Interval(float(a), float(b))) for arm, mean, (a, b) in found)
    )


def _average(means: Floats) -> Floats:
    """Mean ranks of the arms over tasks. ``means``: shape (..., tasks, arms), higher is better."""
    ranks: Floats = stats.rankdata(-np.round(means, 9), axis=-1).mean(axis=-2)
    return ranks
