"""Does the arm do anything at all? Evidence that is exact for any distribution, however often one looks.

If an arm changes nothing, the two runs of a pair are exchangeable: given the size of a difference, its sign is a fair
coin. So is whatever is bet on it. A bet on either side, with stakes that know the sizes so far but not the sign,
turns 1 into ``E_n`` after n pairs, and reaches 1/alpha ever with probability alpha at most (Ville's inequality).
Nothing is assumed of the differences: they may tie, jump, or have no mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noisytune.report.statistics.intervals import ALPHA, Floats, finite

STAKES: Floats = np.ldexp(0.01875, range(8))
"""How much is bet on a difference of usual size: from 0.01875 to 2.4, each on either side. An effect of so many
standard deviations is found soonest by a stake of about that size."""
WEIGHTS: Floats = np.repeat([0.025, 0.225], 4)
"""Of the stakes; they add up to 1. Small effects need hundreds of pairs, where a small share of the money is enough."""


@dataclass(frozen=True)
class SignEvidence:
    """What the signs of the differences show."""

    e: float
    """E_n: 1 is nothing, 1/alpha is a difference."""
    side: int
    """1: for an arm that is mostly better. -1: mostly worse. 0: neither."""


def log_e_values(differences: npt.ArrayLike) -> Floats:
    """The logarithm of E_n after each pair, of bets on better (c > 0) and on worse (c < 0) apart: see `e_values`.

    Args:
        differences: shape (..., n), points, in the order in which the pairs were planned.

    Returns:
        Shape (2, ..., n). The mean of the two, not of their logarithms, is E_n.
    """
    values = finite(differences)
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    values = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0.0)
    n = np.arange(1, values.shape[-1] + 1)
    usual = np.sqrt(np.cumsum(values**2, axis=-1) / n)
    sized = np.divide(values, usual, out=np.zeros_like(values), where=usual > 0.0)
    total = np.full((2, *values.shape), -np.inf)
    for stake, weight in zip(STAKES, WEIGHTS, strict=True):
        for side, sign in enumerate((1.0, -1.0)):
            won = math.log(2.0) - np.logaddexp(0.0, -2.0 * sign * stake * sized)
            total[side] = np.logaddexp(total[side], math.log(weight) + np.cumsum(won, axis=-1))
    return total


def e_values(differences: npt.ArrayLike) -> Floats:
    """The evidence E_n against no effect after each pair: exact for any distribution, however often one looks.

    E_n = sum over stakes c of w_c prod_{i<=n} 2 / (1 + exp(-2 c d_i / s_i)), s_i the root mean square of d_1 .. d_i.
    The weights w_c of c > 0 add up to 1/2, those of c < 0 too. A tie leaves it as it is.

    Args:
        differences: shape (..., n), points, in the order in which the pairs were planned.

    Returns:
        The same shape: E_1 .. E_n along the last axis, > 0; 1 is no evidence, and `needed` is enough.

    Raises:
        DataError: a difference is not finite.

    >>> e_values([0.0, 0.0, 0.0]).tolist()
    [1.0, 1.0, 1.0]
    >>> e_values([0.5] * 7).round(1).tolist()
    [1.0, 1.5, 2.4, 4.1, 7.3, 13.3, 24.5]

    Source: de la Peña 1999, "A general class of exponential inequalities for martingales and ratios", for the bets;
    Ramdas, Grünwald, Vovk & Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference".
    """
    logs = log_e_values(differences)
    exponentials: Floats = np.exp(np.minimum(np.logaddexp(*logs) - math.log(2.0), 700.0))
    return exponentials


def sign_evidence(differences: npt.ArrayLike) -> SignEvidence:
    """What n differences show; E_0 = 1.

    >>> sign_evidence([0.4, 0.5, 0.3, 0.6, 0.4, 0.5, 0.2, 0.5]).side
    1
    """
    values = finite(differences).reshape(-1)
    if not values.size:
        return SignEvidence(1.0, 0)
    better, worse = log_e_values(values)[:, -1]
    e = math.exp(min(float(np.logaddexp(better, worse)) - math.log(2.0), 700.0))
    return SignEvidence(e, int(np.sign(better - worse)))


def needed(comparisons: int = 1, alpha: float = ALPHA) -> float:
    """What E_n must reach: comparisons / alpha, so that all of them err together with probability alpha at most.

    Args:
        comparisons: that are judged side by side, >= 1.
        alpha: 0 < alpha < 1.

    >>> needed(2)
    40.0

    Source: Ville's inequality, and Bonferroni's over the comparisons.
    """
    return round(comparisons / alpha, 9)
