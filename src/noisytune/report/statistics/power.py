"""What could so many pairs have shown, and how many would be needed? Also what choosing the best of many gains."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import integrate, optimize, special, stats

from noisytune.errors import ConfigError
from noisytune.report.statistics.intervals import ALPHA, Floats, anytime_half_width

POWER = 0.8


def detectable(n: int, sd: float, critical: float, power: float = POWER) -> float:
    """True difference (points) for which |t| exceeds ``critical`` with probability ``power``: noncentral t."""
    if n < 2 or not math.isfinite(critical) or not sd > 0.0:
        return math.inf

    return _shift(n, critical, power) * sd / math.sqrt(n)


@lru_cache(maxsize=4096)
def _shift(n: int, critical: float, power: float) -> float:
    """Noncentrality at which |t| exceeds ``critical`` with probability ``power``."""
    chi = _chi(n) * critical

    def excess(shift: float) -> float:
        return float((special.ndtr(shift - chi) + special.ndtr(-shift - chi)).mean()) - power

    return float(optimize.brentq(excess, 0.0, float(chi[-1]) + 10.0))


@lru_cache(maxsize=64)
def _chi(n: int) -> Floats:
    """Quantiles of the spread of n normal draws relative to the true one.

    Noncentral t as a normal over a chi: `scipy.stats.nct` returns NaN for the far tails that small n needs.
    """
    quantiles: Floats = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, n - 1) / (n - 1))
    return quantiles


def pairs_needed(sd: float, half_width: float, alpha: float = ALPHA, g: float = 1.0, most: int = 100_000) -> int | None:
    """Pairs after which the anytime-valid interval at this sd is within +- ``half_width``; None beyond ``most``.

    >>> pairs_needed(sd=1.0, half_width=1.0)
    14
    """
    n = np.arange(2, most + 1)
    narrow = anytime_half_width(n, sd, alpha, g) <= half_width
    return int(n[narrow.argmax()]) if narrow.any() else None


@lru_cache(maxsize=64)
def selection_bias(k: int) -> float:
    """Expected maximum of k standard normals: what "best of k" gains by selection alone, in standard errors.

    >>> round(selection_bias(7), 2)
    1.35
    """
    if k < 1:
        raise ConfigError(f"best of {k}: need at least one")
    value, _ = integrate.quad(lambda x: x * k * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1), -12, 12)
    return float(value)
