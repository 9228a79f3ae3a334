"""What do n paired differences show? Arrays in, small frozen dataclasses out: one comparison's numbers and verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy.typing as npt
from scipy import stats

from noisytune.report.statistics.e_process import SignEvidence, needed, sign_evidence
from noisytune.report.statistics.intervals import (
    ALPHA,
    Floats,
    Interval,
    anytime_interval,
    finite,
    fixed_interval,
    spread,
)
from noisytune.report.statistics.power import detectable, sign_critical_t
from noisytune.report.statistics.sign_flip import SignFlip, sign_flips


class Verdict(StrEnum):
    """What a comparison shows so far."""

    HELPED = "helped"
    HURT = "hurt"
    MIXED = "mixed"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Summary:
    """What n paired differences show, in points."""

    n: int
    mean: float
    sd: float
    """Sample standard deviation (n - 1); NaN below two pairs."""
    fixed: Interval
    """Paired-t 95 % interval, right for one look at an n settled beforehand."""
    anytime: Interval
    """Right at every n at once, and for all comparisons at once."""
    evidence: SignEvidence
    needed: float
    """What ``evidence.e`` must reach for all comparisons at once."""
    sign_flip: SignFlip
    iqm: float
    """Interquartile mean: of the middle half of the differences."""
    wins: int
    ties: int
    losses: int
    detectable: float
    """True difference for which ``evidence.e`` reaches ``needed`` at this n and sd in about 80 % of studies, were they
    normal; infinite where nothing reaches it."""
    detectable_fixed: float
    """The same for the fixed-n interval, which leaves 0 out in 80 % of such studies."""


def summarise(differences: npt.ArrayLike, comparisons: int = 1, alpha: float = ALPHA, g: float = 1.0) -> Summary:
    """Everything that one comparison's differences show.

    Args:
        differences: shape (n,), points; n may be 0 or 1, which leaves the intervals unbounded.
        comparisons: how many are judged side by side; the anytime-valid intervals hold for all of them at once (alpha
            / comparisons).
        alpha: 0.05 for 95 % intervals.
        g: prior variance of the effect size, see `e_value`.

    Raises:
        DataError: a difference is not finite.

    >>> s = summarise([0.5, 1.0, -0.2, 0.8, 0.4])
    >>> s.wins, s.losses, round(s.mean, 2), round(s.anytime.high, 2), round(s.evidence.e, 1)
    (4, 1, 0.5, 2.23, 2.3)
    """
    return summarise_all([differences], comparisons, alpha, g)[0]


def summarise_all(
    each: Sequence[npt.ArrayLike], comparisons: int = 1, alpha: float = ALPHA, g: float = 1.0
) -> list[Summary]:
    """`summarise` of each of many comparisons, in less time than one by one."""
    values = [finite(one).reshape(-1) for one in each]
    return [
        _summary(one, fixed_interval(one, alpha), 1, flip, comparisons, alpha, g)
        for one, flip in zip(values, sign_flips(values), strict=True)
    ]


def pooled(differences: npt.ArrayLike, comparisons: int = 1, alpha: float = ALPHA, g: float = 1.0) -> Summary:
    """The mean difference over several tasks that share their seeds; with one task, `summarise`.

    The fixed-n interval pools the variance within tasks, v = T (n - 1). Sign flips go by seed, all tasks of a seed
    together, and the anytime-valid interval, wins and losses are those of the per-seed means over tasks.

    Args:
        differences: shape (seeds, tasks), points.
        comparisons: see `summarise`.
        alpha: see `summarise`.
        g: see `summarise`.
    """
    return pooled_all([differences], comparisons, alpha, g)[0]


def pooled_all(
    tables: Sequence[npt.ArrayLike], comparisons: int = 1, alpha: float = ALPHA, g: float = 1.0
) -> list[Summary]:
    """`pooled` of each of many comparisons, in less time than one by one."""
    each = [finite(table) for table in tables]
    by_seed = [table.mean(axis=1) for table in each]
    return [
        _summary(means, _pooled_interval(table, alpha), table.shape[1], flip, comparisons, alpha, g)
        for table, means, flip in zip(each, by_seed, sign_flips(by_seed), strict=True)
    ]


def _pooled_interval(table: Floats, alpha: float) -> Interval:
    """Of the mean, with the variance within tasks; shape (seeds, tasks)."""
    n, tasks = table.shape
    if n < 2:
        return Interval(-math.inf, math.inf)
    free = tasks * (n - 1)
    sd = math.sqrt(float(((table - table.mean(axis=0)) ** 2).sum()) / free)
    half = float(stats.t.ppf(1 - alpha / 2, free)) * sd / math.sqrt(n * tasks)
    mean = float(table.mean(axis=1).mean())
    return Interval(mean - half, mean + half) if half > 0.0 else Interval(-math.inf, math.inf)


def _summary(
    values: Floats, fixed: Interval, tasks: int, flip: SignFlip, comparisons: int, alpha: float, g: float
) -> Summary:
    n, sd, enough = values.size, spread(values), needed(comparisons, alpha)
    mean = float(values.mean()) if n else math.nan
    return Summary(
        n=n,
        mean=mean,
        sd=sd,
        fixed=fixed,
        anytime=anytime_interval(values, alpha / comparisons, g),
        evidence=sign_evidence(values),
        needed=enough,
        sign_flip=flip,
        iqm=float(stats.trim_mean(values, 0.25)) if n else math.nan,
        wins=int((values > 0).sum()),
        ties=int((values == 0).sum()),
        losses=int((values < 0).sum()),
        detectable=detectable(n, sd, sign_critical_t(n, enough)),
        detectable_fixed=_detectable_fixed(fixed.high - mean, tasks * (n - 1), alpha) if n > 1 else math.inf,
    )


def _detectable_fixed(half: float, free: int, alpha: float) -> float:
    """Of the fixed-n interval of that half width and so many degrees of freedom."""
    critical = float(stats.t.ppf(1 - alpha / 2, free))
    return detectable(free + 1, half / critical * math.sqrt(free + 1), critical)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p-values over one family.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, floor = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        floor = max(floor, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = floor
    return adjusted


def judge(evidence: SignEvidence, enough: float, mean: float, interval: Interval, margin: float) -> Verdict:
    """The verdict on one comparison.

    That the arm does something rests on the signs, for any distribution. Which way, on signs and mean together: where
    they point apart, as in many small gains and a rare collapse, it is mixed. That it does too little to matter rests
    on the interval, for roughly normal differences.

    Args:
        evidence: of the signs.
        enough: what its ``e`` must reach.
        mean: of the differences, points.
        interval: the anytime-valid one, points.
        margin: in points, what counts as no difference.

    >>> judge(SignEvidence(2.0, 1), 20.0, 0.1, Interval(-0.4, 0.3), margin=0.5).value
    'equivalent'
    >>> judge(SignEvidence(31.0, 1), 20.0, -0.2, Interval(-0.9, 0.3), margin=0.5).value
    'mixed'
    """
    if evidence.e >= enough:
        if evidence.side * mean <= 0.0:
            return Verdict.MIXED
        return Verdict.HELPED if mean > 0.0 else Verdict.HURT
    if -margin <= interval.low and interval.high <= margin:
        return Verdict.EQUIVALENT
    return Verdict.INCONCLUSIVE


def judge_by_interval(interval: Interval, margin: float) -> Verdict:
    """What the anytime-valid interval alone would say, were the differences normal.

    >>> judge_by_interval(Interval(0.4, 0.9), margin=0.5).value
    'helped'
    """
    if interval.low > 0.0:
        return Verdict.HELPED
    if interval.high < 0.0:
        return Verdict.HURT
    if -margin <= interval.low and interval.high <= margin:
        return Verdict.EQUIVALENT
    return Verdict.INCONCLUSIVE
