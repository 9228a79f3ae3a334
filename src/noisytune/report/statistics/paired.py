"""What do n paired differences show? Statistics only: arrays in, small frozen dataclasses out.

Differences are in points (score x 100), arm minus baseline, one a pair. Two kinds of interval stand side by side: the
*fixed-n* one is right for a number of pairs that was settled beforehand; the *anytime-valid* one stays right however
often one looks and adds pairs, and verdicts rest on it. Both are for roughly normal differences.

Scores move in steps (one dev example more or less), so differences tie, and ties say little about spread: five ties in
a row are likely where one run in ten jumps by 15 points. Hence the most common difference counts as two pairs at most
towards what n pairs can show. See `noisytune.report.statistics.shape.distinct_pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import integrate, optimize, special, stats

from noisytune.errors import ConfigError, DataError
from noisytune.report.statistics.shape import distinct_pairs

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
EXACT_UP_TO = 20
"""Non-zero differences up to which a sign-flip test enumerates every flip: 2**20 sums take some 20 ms."""
MONTE_CARLO_FLIPS = 99_999


class Verdict(StrEnum):
    """What a comparison shows so far."""

    HELPED = "helped"
    HURT = "hurt"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Interval:
    """A range of means in points; infinite ends where the data exclude nothing."""

    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class SignFlip:
    """A sign-flip test: how many of the flips give a mean at least as far from 0."""

    p: float
    exact: bool
    flips: int
    """Flips looked at: all of them where exact, else drawn at random."""


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
    sign_flip: SignFlip
    wins: int
    ties: int
    losses: int
    detectable: float
    """True difference that the anytime-valid interval would tell from 0 at this n and sd in 80 % of studies; infinite
    where it is unbounded."""
    detectable_fixed: float
    """The same for the fixed-n paired t test at 5 %."""


@dataclass(frozen=True)
class Running:
    """The mean difference and its anytime-valid band after each pair; every array has the shape of the differences."""

    n: npt.NDArray[np.int64]
    mean: Floats
    low: Floats
    high: Floats


def _finite(differences: npt.ArrayLike) -> Floats:
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"paired differences: {int((~np.isfinite(values)).sum())} of {values.size} are not finite")
    return values


def _spread(values: Floats) -> float:
    """Sample sd; exactly 0 where the values differ by rounding only."""
    if values.size < 2:
        return math.nan
    sd = float(values.std(ddof=1))
    return 0.0 if sd <= 1e-12 * float(np.abs(values).max()) else sd


def e_value(differences: npt.ArrayLike, mean: float = 0.0, g: float = 1.0) -> float:
    """Evidence against the true mean being ``mean``: a paired-t e-process with prior N(0, g) on the effect size.

    E_n = (1 + n g)^(-1/2) * ((1 + t^2/v) / (1 + t^2/(v (1 + n g))))^(n/2), v = n - 1, with t the paired t statistic
    against ``mean``. For the true mean it exceeds 1/alpha at any n with probability alpha at most, for normal
    differences. Capped at (1 + m g)^((m - 1)/2), the most that m pairs can show, with m from `distinct_pairs`: equal
    differences are no evidence.

    Args:
        differences: shape (n,), points.
        mean: the mean under test, points.
        g: prior variance of mean/sd.

    Returns:
        E_n; 1 below two pairs and where all differences are equal.

    >>> round(e_value([1.0, 2.0, 3.0]), 3)
    2.343

    Source: Lai 1976; Wang & Ramdas 2023, "Anytime-valid t-tests and confidence sequences for Gaussian means with
    unknown variance".
    """
    values = _finite(differences)
    n, sd = values.size, _spread(values)
    if n < 2 or sd == 0.0:
        return 1.0
    grown, distinct = 1.0 + n * g, int(distinct_pairs(values)[-1])
    x = n * ((float(values.mean()) - mean) / sd) ** 2 / (n - 1)
    log_e = -0.5 * math.log(grown) + n / 2 * (math.log1p(x) - math.log1p(x / grown))
    return math.exp(min(log_e, (distinct - 1) / 2 * math.log1p(distinct * g)))


def critical_t(n: npt.ArrayLike, alpha: float = ALPHA, g: float = 1.0) -> Floats:
    """|t| beyond which `e_value` reaches 1/alpha: infinite where n is too small for any data to reach it.

    With x = t^2/v and r = (sqrt(1 + n g) / alpha)^(2/n), E_n < 1/alpha inverts to x < (r - 1) / (1 - r/(1 + n g))
    where r < 1 + n g.

    Args:
        n: numbers of pairs, any shape.
        alpha: error probability over all n, 0 < alpha < 1.
        g: as in `e_value`.

    Raises:
        ConfigError: ``alpha`` or ``g`` out of range.

    >>> critical_t([4, 5, 20]).round(2).tolist()
    [inf, 8.45, 3.42]
    """
    if not 0.0 < alpha < 1.0 or not g > 0.0:
        raise ConfigError(f"alpha = {alpha}, g = {g}: need 0 < alpha < 1 and g > 0")
    pairs = np.asarray(n, dtype=np.float64)
    grown = 1.0 + pairs * g
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_r = 2.0 / pairs * (0.5 * np.log(grown) - math.log(alpha))
        x = np.expm1(log_r) / -np.expm1(log_r - np.log(grown))
        t = np.sqrt((pairs - 1.0) * x)
    reachable: Floats = np.where((pairs >= 2) & (log_r < np.log(grown)), t, np.inf)
    return reachable


def anytime_half_width(n: npt.ArrayLike, sd: npt.ArrayLike, alpha: float = ALPHA, g: float = 1.0) -> Floats:
    """Half the width of the anytime-valid interval, points: `critical_t` standard errors; infinite where that is."""
    t = critical_t(n, alpha, g)
    pairs, spread = np.asarray(n, dtype=np.float64), np.asarray(sd, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = t * spread / np.sqrt(pairs)
    result: Floats = np.where(np.isfinite(t), half, np.inf)
    return result


def anytime_interval(differences: npt.ArrayLike, alpha: float = ALPHA, g: float = 1.0) -> Interval:
    """Every mean with `e_value` below 1/alpha: right at all n at once, for roughly normal differences.

    Unbounded until `distinct_pairs` is a number of pairs that could bound it.

    >>> anytime_interval([0.0] * 9)
    Interval(low=-inf, high=inf)
    """
    values = _finite(differences)
    if values.size < 2 or not math.isfinite(critical_t(distinct_pairs(values)[-1], alpha, g)):
        return Interval(-math.inf, math.inf)
    mean, half = float(values.mean()), float(anytime_half_width(values.size, _spread(values), alpha, g))
    return Interval(mean - half, mean + half)


def fixed_interval(differences: npt.ArrayLike, alpha: float = ALPHA) -> Interval:
    """Paired-t interval of level 1 - alpha for a number of pairs settled beforehand; unbounded without spread."""
    values = _finite(differences)
    if values.size < 2 or _spread(values) == 0.0:
        return Interval(-math.inf, math.inf)
    mean = float(values.mean())
    half = float(stats.t.ppf(1 - alpha / 2, values.size - 1)) * _spread(values) / math.sqrt(values.size)
    return Interval(mean - half, mean + half)


def sign_flip(differences: npt.ArrayLike, seed: int = 0) -> SignFlip:
    """Two-sided sign-flip test of "arm and baseline are exchangeable within a pair".

    Exact up to `EXACT_UP_TO` non-zero differences, beyond that by Monte Carlo (the observed one counted in).

    Args:
        differences: shape (n,).
        seed: of the random flips.

    >>> sign_flip([0.2, 0.1, 0.4, 0.3, 0.2]).p
    0.0625
    """
    values = _finite(differences)
    values = values[values != 0.0]
    if values.size == 0:
        return SignFlip(1.0, True, 1)
    # Sums that are equal on paper may differ in the last bit.
    reached = abs(float(values.sum())) - 1e-9 * float(np.abs(values).sum())
    if values.size <= EXACT_UP_TO:
        sums = values[:1]  # the other sign of the first one only mirrors every sum
        for value in values[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return SignFlip(float((np.abs(sums) >= reached).mean()), True, 2**values.size)
    rng = np.random.default_rng(seed)
    hits = 0
    for chunk in np.array_split(np.arange(MONTE_CARLO_FLIPS), 20):
        signs = rng.integers(0, 2, (chunk.size, values.size), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ values) >= reached).sum())
    return SignFlip((1 + hits) / (1 + MONTE_CARLO_FLIPS), False, MONTE_CARLO_FLIPS)


def detectable(n: int, sd: float, critical: float, power: float = POWER) -> float:
    """True difference (points) for which |t| exceeds ``critical`` with probability ``power``: noncentral t."""
    if n < 2 or not math.isfinite(critical) or not sd > 0.0:
        return math.inf

    # Noncentral t as a normal over a chi: `scipy.stats.nct` returns NaN for the far tails that small n needs.
    chi = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, n - 1) / (n - 1)) * critical

    def excess(shift: float) -> float:
        return float((special.ndtr(shift - chi) + special.ndtr(-shift - chi)).mean()) - power

    return float(optimize.brentq(excess, 0.0, float(chi[-1]) + 10.0)) * sd / math.sqrt(n)


def _summary(values: Floats, fixed: Interval, fixed_critical: float, alpha: float, g: float) -> Summary:
    n, sd, anytime = values.size, _spread(values), anytime_interval(values, alpha, g)
    return Summary(
        n=n,
        mean=float(values.mean()) if n else math.nan,
        sd=sd,
        fixed=fixed,
        anytime=anytime,
        sign_flip=sign_flip(values),
        wins=int((values > 0).sum()),
        ties=int((values == 0).sum()),
        losses=int((values < 0).sum()),
        detectable=detectable(n, sd, float(critical_t(n, alpha, g)) if anytime.bounded else math.inf),
        detectable_fixed=detectable(n, sd, fixed_critical),
    )


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
    >>> s.wins, s.losses, round(s.mean, 2), round(s.anytime.high, 2)
    (4, 1, 0.5, 2.23)
    """
    values = _finite(differences).reshape(-1)
    fixed_critical = float(stats.t.ppf(1 - alpha / 2, values.size - 1)) if values.size > 1 else math.inf
    return _summary(values, fixed_interval(values, alpha), fixed_critical, alpha / comparisons, g)


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
    table = _finite(differences)
    n, tasks = table.shape
    by_seed = table.mean(axis=1)
    if n < 2:
        return summarise(by_seed, comparisons, alpha, g)
    free = tasks * (n - 1)
    sd = math.sqrt(float(((table - table.mean(axis=0)) ** 2).sum()) / free)
    half = float(stats.t.ppf(1 - alpha / 2, free)) * sd / math.sqrt(n * tasks)
    mean = float(by_seed.mean())
    fixed = Interval(mean - half, mean + half) if half > 0.0 else Interval(-math.inf, math.inf)
    fixed_critical = float(stats.t.ppf(1 - alpha / 2, n - 1))
    return _summary(by_seed, fixed, fixed_critical, alpha / comparisons, g)


def running(differences: npt.ArrayLike, comparisons: int = 1, alpha: float = ALPHA, g: float = 1.0) -> Running:
    """Mean and anytime-valid band after each pair, along the last axis.

    >>> running([1.0, 2.0, 3.0]).mean.tolist()
    [1.0, 1.5, 2.0]
    """
    values = _finite(differences)
    n = np.arange(1, values.shape[-1] + 1, dtype=np.int64)
    mean = np.cumsum(values, axis=-1) / n
    # Around the overall mean, so that the difference of the two sums keeps its digits.
    centre = values.mean(axis=-1, keepdims=True) if values.size else values
    shifted = values - centre
    squares = np.cumsum(shifted**2, axis=-1) - np.cumsum(shifted, axis=-1) ** 2 / n
    sd = np.sqrt(np.maximum(squares, 0.0) / np.maximum(n - 1, 1))
    bounded = np.isfinite(critical_t(distinct_pairs(values), alpha / comparisons, g))
    half = np.where(bounded, anytime_half_width(n, sd, alpha / comparisons, g), np.inf)
    return Running(np.broadcast_to(n, values.shape), mean, mean - half, mean + half)


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


def judge(interval: Interval, margin: float) -> Verdict:
    """The verdict that an anytime-valid interval allows; ``margin`` in points is what counts as no difference.

    >>> judge(Interval(-0.4, 0.3), margin=0.5).value
    'equivalent'
    """
    if interval.low > 0.0:
        return Verdict.HELPED
    if interval.high < 0.0:
        return Verdict.HURT
    if -margin <= interval.low and interval.high <= margin:
        return Verdict.EQUIVALENT
    return Verdict.INCONCLUSIVE


def pairs_needed(sd: float, half_width: float, alpha: float = ALPHA, g: float = 1.0, most: int = 100_000) -> int | None:
    """Pairs after which the anytime-valid interval at this sd is within +- ``half_width``; None beyond ``most``.

    >>> pairs_needed(sd=1.0, half_width=1.0)
    14
    """
    n = np.arange(2, most + 1)
    narrow = anytime_half_width(n, sd, alpha, g) <= half_width
    return int(n[narrow.argmax()]) if narrow.any() else None


def selection_bias(k: int) -> float:
    """Expected maximum of k standard normals: what "best of k" gains by selection alone, in standard errors.

    >>> round(selection_bias(7), 2)
    1.35
    """
    if k < 1:
        raise ConfigError(f"best of {k}: need at least one")
    value, _ = integrate.quad(lambda x: x * k * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1), -12, 12)
    return float(value)
