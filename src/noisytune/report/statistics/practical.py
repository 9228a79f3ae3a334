"""How probable is it that the arm makes a difference in practice, one beyond the margin?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Chances:
    """Probabilities that the true mean difference lies below, within and above the margin; NaN where unknown."""

    below: float
    within: float
    above: float


def chances(n: int, mean: float, sd: float, margin: float) -> Chances:
    """Where the true mean difference lies, given n normal differences and no other knowledge.

    Its posterior with the prior 1/sd^2 is Student's t with n - 1 degrees of freedom around the mean. A probability of
    what is so far, not a test: it says nothing about looking again.

    Args:
        n: pairs.
        mean: of the differences, points.
        sd: of the differences, points.
        margin: half the width of what counts as no difference, points.

    Source: Benavoli, Corani, Demšar & Zaffalon 2017, "Time for a change: a tutorial for comparing multiple classifiers
    through Bayesian analysis", without its correction for folds that share training data.

    >>> chances(10, 0.5, 1.0, 0.5).above
    0.5
    """
    if n < 2 or not sd > 0.0:
        return Chances(math.nan, math.nan, math.nan)
    posterior = stats.t(n - 1, loc=mean, scale=sd / math.sqrt(n))
    below, above = float(posterior.cdf(-margin)), float(posterior.sf(margin))
    return Chances(below, 1.0 - below - above, above)
