"""What could so many pairs have shown, and how many would be needed? Also what choosing the best of many gains."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import integrate, optimize, special, stats

from noisytune.errors import ConfigError
from noisytune.report.statistics.e_process import STAKES, WEIGHTS
from noisytune.report.statistics.intervals import ALPHA, Floats, anytime_half_width

POWER = 0.8


def detectable(n: int, sd: float, critical: float) -> float:
    """True difference (points) for which |t| exceeds ``critical`` with probability `POWER`: noncentral t."""
    if n < 2 or not math.isfinite(critical) or not sd > 0.0:
        return math.inf

    return _shift(n, critical) * sd / math.sqrt(n)


def chance_of_t(n: int, effect: float, alpha: float = ALPHA) -> float:
    """Probability that a paired t test of n pairs, looked at once, shows a true mean of ``effect`` standard deviations.

    Args:
        n: pairs, >= 2.
        effect: the true mean difference over the standard deviation of the differences; its sign does not matter.
        alpha: of the two-sided test, 0 < alpha < 1.

    >>> round(chance_of_t(10, 1.0), 2)
    0.8
    """
    shift, critical = abs(effect) * math.sqrt(n), _chi(n) * float(stats.t.ppf(1 - alpha / 2, n - 1))
    return float((special.ndtr(shift - critical) + special.ndtr(-shift - critical)).mean())


@lru_cache(maxsize=4096)
def _shift(n: int, critical: float) -> float:
    """Noncentrality at which |t| exceeds ``critical`` with probability `POWER`."""
    chi = _chi(n) * critical

    def excess(shift: float) -> float:
        return float((special.ndtr(shift - chi) + special.ndtr(-shift - chi)).mean()) - POWER

    return float(optimize.brentq(excess, 0.0, float(chi[-1]) + 10.0))


@lru_cache(maxsize=64)
def _chi(n: int) -> Floats:
    """Quantiles of the spread of n normal draws relative to the true one.

    Noncentral t as a normal over a chi: `scipy.stats.nct` returns NaN for the far tails that small n needs.
    """
    quantiles: Floats = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, n - 1) / (n - 1))
    return quantiles


def pairs_needed(sd: float, half_width: float, alpha: float = ALPHA, g: float = 1.0, most: int = 100_000) -> int | None:
    """Pairs after which the anytime-valid interval at this sd is within +- ``half_width`` of the mean.

    Args:
        sd: of the paired differences, points, > 0.
        half_width: points, > 0: a margin, say.
        alpha: error probability over all n, 0 < alpha < 1.
        g: prior variance of mean/sd, > 0.
        most: pairs that are looked at.

    Returns:
        The smallest number of pairs; None beyond ``most``.

    Raises:
        ConfigError: ``alpha`` or ``g`` out of range.

    >>> pairs_needed(sd=1.0, half_width=1.0)
    14
    """
    n = np.arange(2, most + 1)
    narrow = anytime_half_width(n, sd, alpha, g) <= half_width
    return int(n[narrow.argmax()]) if narrow.any() else None


@lru_cache(maxsize=4096)
def sign_critical_t(n: int, enough: float) -> float:
    """About the |t| from which the sign-flip e-process reaches ``enough`` with n normal differences; infinite if none.

    With r the mean over the root mean square, the differences over the latter are about normal with mean r and variance
    1 - r^2, and log E_n of one stake c is n (c r - E log cosh(c x)). Simulated at the difference that this makes
    detectable, 73 to 85 % of studies reach ``enough`` for n from 7 to 1000, not 80 %.

    >>> sign_critical_t(6, 20.0), round(sign_critical_t(20, 20.0), 2)
    (inf, 3.36)
    """

    def excess(share: float) -> float:
        x = share + math.sqrt(1.0 - share * share) * _NODES
        logs = [
            math.log(weight / 2) + n * (side * stake * share - float(_NODE_WEIGHTS @ _log_cosh(stake * x)))
            for stake, weight in zip(STAKES, WEIGHTS, strict=True)
            for side in (1.0, -1.0)
        ]
        return float(special.logsumexp(logs)) - math.log(enough)

    if n < 2 or excess(1.0) < 0.0:
        return math.inf
    share = float(optimize.brentq(excess, 0.0, 1.0))
    return share * math.sqrt(n - 1) / math.sqrt(1.0 - share * share) if share < 1.0 else math.inf


_NODES, _UNSCALED = np.polynomial.hermite_e.hermegauss(61)
_NODE_WEIGHTS = _UNSCALED / _UNSCALED.sum()


def _log_cosh(x: Floats) -> Floats:
    logs: Floats = np.logaddexp(x, -x) - math.log(2.0)
    return logs


def first_to_settle(enough: float) -> int:
    """Pairs from which on E_n can reach ``enough`` at all: those it takes where all differences are equal.

    Args:
        enough: as of `needed`, > 1.

    >>> first_to_settle(20.0), first_to_settle(40.0)
    (7, 8)
    """
    n = np.arange(1, 2000)
    logs = np.log(WEIGHTS[:, None] / 2) + n * (math.log(2.0) - np.logaddexp(0.0, -2.0 * STAKES[:, None]))
    against = np.log(WEIGHTS[:, None] / 2) + n * (math.log(2.0) - np.logaddexp(0.0, 2.0 * STAKES[:, None]))
    return int(n[(np.logaddexp.reduce(np.vstack([logs, against]), axis=0) >= math.log(enough)).argmax()])


@lru_cache(maxsize=64)
def selection_bias(k: int) -> float:
    """Expected maximum of k standard normals: what "best of k" gains by selection alone, in standard errors.

    Args:
        k: of how many equally good ones the best is taken, >= 1.

    Raises:
        ConfigError: ``k`` is less than 1.

    >>> round(selection_bias(7), 2)
    1.35
    """
    if k < 1:
        raise ConfigError(f"best of {k}: need at least one")
    value, _ = integrate.quad(lambda x: x * k * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1), -12, 12)
    return float(value)
