"""How many pairs will it take, and where will ``--until-decided`` stop? By exact power, and by simulated studies."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from noisytune.errors import ConfigError
from noisytune.report.statistics.e_process import log_e_values, needed
from noisytune.report.statistics.intervals import ALPHA, Floats, running
from noisytune.report.statistics.paired import Verdict
from noisytune.report.statistics.power import POWER, chance_of_t

LONGEST = 2000
"""Pairs of a study at most."""
STUDIES, DRAWS = 10_000, 1_000_000
"""Studies that are simulated, and their differences at most."""


@dataclass(frozen=True)
class Stops:
    """Where studies stop that are looked at after every pair, and end undecided at ``most`` pairs."""

    most: int
    mean: float
    """Pairs on average, those of undecided studies among them."""
    median: float
    shares: dict[str, float]
    """How many end with which verdict."""


@dataclass(frozen=True)
class Plan:
    """What a difference of so many points takes, where differences are normal with this spread."""

    fixed: int | None
    """Pairs for a paired t test at 5 % that is looked at once; None: more than `LONGEST`."""
    anytime: int | None
    """Pairs within which e suffices, looked at after every pair; None: more than `LONGEST`."""
    stops: Stops


def plan(
    effect: float,
    sd: float,
    power: float = POWER,
    *,
    margin: float = 1.0,
    most: int = 50,
    comparisons: int = 1,
    seed: int = 0,
) -> Plan:
    """Pairs that show a true mean difference.

    Args:
        effect: the true mean difference, points, not 0.
        sd: of the paired differences, points, > 0.
        power: the share of studies that are to show it, 0 < power < 1.
        margin: what counts as no difference, points, >= 0: ``--until-decided`` stops at equivalent too.
        most: ``--max-seeds``, 1 to 2000.
        comparisons: judged at once, >= 1.
        seed: of the simulation.

    Raises:
        ConfigError: a number out of its range.

    >>> found = plan(1.0, 1.0)
    >>> found.fixed, found.anytime, found.stops.median
    (10, 19, 12.0)
    """
    for name, value, allowed, holds in (
        ("sd", sd, "a finite number > 0", 0.0 < sd < math.inf),
        ("effect", effect, "a finite number other than 0", 0.0 < abs(effect) < math.inf),
        ("power", power, "a share, 0 < power < 1", 0.0 < power < 1.0),
        ("most", most, f"1 to {LONGEST} pairs", 1 <= most <= LONGEST),
    ):
        if not holds:
            raise ConfigError(f"{name} must be {allowed}, got {value:g}")
    fixed = _fixed(abs(effect) / sd, power, ALPHA / comparisons)
    length = min(LONGEST, max(most, 40, 3 * (fixed or LONGEST)))
    studies = _simulated(effect, sd, length, seed, comparisons)
    anytime = _reached(studies.enough, power)
    if anytime is None and length < LONGEST:
        anytime = _reached(_simulated(effect, sd, LONGEST, seed, comparisons).enough, power)
    return Plan(fixed, anytime, _stops(studies, most, margin, comparisons))


class _Simulated(NamedTuple):
    drawn: Floats
    """(studies, pairs)"""
    by_side: Floats
    """Log e-values (2, studies, pairs)."""
    enough: npt.NDArray[np.bool_]
    """Where e suffices (studies, pairs)."""


def _simulated(effect: float, sd: float, length: int, seed: int, comparisons: int) -> _Simulated:
    drawn = np.random.default_rng(seed).normal(effect, sd, (min(STUDIES, DRAWS // length), length))
    by_side = log_e_values(drawn)
    return _Simulated(drawn, by_side, np.logaddexp(*by_side) - math.log(2.0) >= math.log(needed(comparisons)))


def _reached(enough: npt.NDArray[np.bool_], power: float) -> int | None:
    """Within how many pairs e has sufficed in a share ``power`` of the studies."""
    shown = np.logical_or.accumulate(enough, axis=1).mean(axis=0)
    return int(shown.searchsorted(power)) + 1 if shown[-1] >= power else None


def _fixed(effect: float, power: float, alpha: float) -> int | None:
    """``effect``: in standard deviations."""
    pairs = range(2, LONGEST + 1)
    place = bisect_left(pairs, power, key=lambda n: chance_of_t(n, effect, alpha))
    return pairs[place] if place < len(pairs) else None


def _stops(studies: _Simulated, most: int, margin: float, comparisons: int) -> Stops:
    drawn, by_side, enough = studies.drawn[:, :most], studies.by_side[..., :most], studies.enough[:, :most]
    band = running(drawn, comparisons, ties=False)
    alike = (band.low >= -margin) & (band.high <= margin)
    decided = enough | alike
    undecided = ~decided.any(axis=1)
    last = np.where(undecided, most - 1, decided.argmax(axis=1))
    rows = np.arange(len(drawn))
    better, up = (by_side[0] > by_side[1])[rows, last], (band.mean > 0.0)[rows, last]
    signs, within = enough[rows, last], alike[rows, last]
    ends = {
        Verdict.HELPED: signs & better & up,
        Verdict.HURT: signs & ~better & ~up,
        Verdict.MIXED: signs & (better != up),
        Verdict.EQUIVALENT: ~signs & within,
        Verdict.INCONCLUSIVE: undecided,
    }
    shares = {verdict.value: float(of.mean()) for verdict, of in ends.items()}
    return Stops(most, float(last.mean()) + 1.0, float(np.median(last)) + 1.0, shares)
