"""Which means do n paired differences allow? Intervals that hold at one n, and at every n at once.

Differences are in points (score x 100), arm minus baseline, one a pair. Two kinds of interval stand side by side: the
*fixed-n* one is right for a number of pairs that was settled beforehand; the *anytime-valid* one stays right however
often one looks and adds pairs, and verdicts rest on it. Both are for roughly normal differences.

Scores move in steps (one dev example more or less), so differences tie, and ties say little about spread: five ties in
a row are likely where one run in ten jumps by 15 points. Hence the most common difference counts as two pairs at most
towards what n pairs can show. See `noisytune.report.statistics.shape.distinct_pairs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from noisytune.errors import ConfigError, DataError
from noisytune.report.statistics.shape import distinct_pairs

Floats = npt.NDArray[np.float64]

ALPHA = 0.05


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
class Running:
    """The mean difference and its anytime-valid band after each pair; every array has the shape of the differences."""

    n: npt.NDArray[np.int64]
    mean: Floats
    low: Floats
    high: Floats


def finite(differences: npt.ArrayLike) -> Floats:
    """The differences as floats; a `DataError` where one is not finite."""
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"paired differences: {int((~np.isfinite(values)).sum())} of {values.size} are not finite")
    return values


def spread(values: Floats) -> float:
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
    values = finite(differences)
    n, sd = values.size, spread(values)
    if n < 2 or sd == 0.0:
        return 1.0
    grown, distinct = 1.0 + n * g, int(distinct_pairs(values)[-1])
    x = n * ((float(values.mean()) - mean) / sd) ** 2 / (n - 1)
    log_e = -0.5 * math.log(grown) + n / 2 * (math.log1p(x) - math.log1p(x / grown))
    return math.exp(min(log_e, (distinct - 1) / 2 * math.log1p(distinct * g)))


def critical_t(n: npt.ArrayLike, alpha: float = ALPHA, g: float = 1.0) -> Floats:
    """The size of t from which on the anytime-valid interval leaves out a mean; infinite where n is too small.

    There the paired-t e-process E_n with prior N(0, g) on the effect size reaches 1/alpha. With x = t^2/v and
    r = (sqrt(1 + n g) / alpha)^(2/n), E_n < 1/alpha inverts to x < (r - 1) / (1 - r/(1 + n g)) where r < 1 + n g.

    Args:
        n: numbers of pairs, any shape.
        alpha: error probability over all n, 0 < alpha < 1.
        g: prior variance of mean/sd, > 0.

    Returns:
        The same shape.

    Raises:
        ConfigError: ``alpha`` or ``g`` out of range.

    >>> critical_t([4, 5, 20]).round(2).tolist()
    [inf, 8.45, 3.42]

    Source: Lai 1976; Wang & Ramdas 2023, "Anytime-valid t-tests and confidence sequences for Gaussian means with
    unknown variance".
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
    pairs, deviation = np.asarray(n, dtype=np.float64), np.asarray(sd, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = t * deviation / np.sqrt(pairs)
    result: Floats = np.where(np.isfinite(t), half, np.inf)
    return result


def anytime_interval(differences: npt.ArrayLike, alpha: float = ALPHA, g: float = 1.0) -> Interval:
    """Every mean with `e_value` below 1/alpha: right at all n at once, for roughly normal differences.

    Unbounded until `distinct_pairs` is a number of pairs that could bound it.

    >>> anytime_interval([0.0] * 9)
    Interval(low=-inf, high=inf)
    """
    values = finite(differences)
    if values.size < 2 or not math.isfinite(critical_t(distinct_pairs(values)[-1], alpha, g)):
        return Interval(-math.inf, math.inf)
    mean, half = float(values.mean()), float(anytime_half_width(values.size, spread(values), alpha, g))
    return Interval(mean - half, mean + half)


def fixed_interval(differences: npt.ArrayLike, alpha: float = ALPHA) -> Interval:
    """Paired-t interval of level 1 - alpha for a number of pairs settled beforehand; unbounded without spread."""
    values = finite(differences)
    if values.size < 2 or spread(values) == 0.0:
        return Interval(-math.inf, math.inf)
    mean = float(values.mean())
    half = float(stats.t.ppf(1 - alpha / 2, values.size - 1)) * spread(values) / math.sqrt(values.size)
    return Interval(mean - half, mean + half)


def running(
    differences: npt.ArrayLike, comparisons: int = 1, alpha: float = ALPHA, g: float = 1.0, *, ties: bool = True
) -> Running:
    """Mean and anytime-valid band after each pair, along the last axis; ``ties``: whether differences may be equal.

    >>> running([1.0, 2.0, 3.0]).mean.tolist()
    [1.0, 1.5, 2.0]
    """
    values = finite(differences)
    n = np.arange(1, values.shape[-1] + 1, dtype=np.int64)
    mean = np.cumsum(values, axis=-1) / n
    # Around the overall mean, so that the difference of the two sums keeps its digits.
    centre = values.mean(axis=-1, keepdims=True) if values.size else values
    shifted = values - centre
    squares = np.cumsum(shifted**2, axis=-1) - np.cumsum(shifted, axis=-1) ** 2 / n
    sd = np.sqrt(np.maximum(squares, 0.0) / np.maximum(n - 1, 1))
    bounded = np.isfinite(critical_t(distinct_pairs(values) if ties else n, alpha / comparisons, g))
    half = np.where(bounded, anytime_half_width(n, sd, alpha / comparisons, g), np.inf)
    return Running(np.broadcast_to(n, values.shape), mean, mean - half, mean + half)
