"""Numbers in, intervals and p-values out: what a study can show, what it takes, and what it has shown so far.

Knows no study: differences are in points, arm minus baseline, one a pair.

>>> from noisytune.report.statistics import e_values, needed, plan
>>> plan(effect=1.0, sd=1.0).fixed  # pairs for a t test that is looked at once
10
>>> [bool(e >= needed()) for e in e_values([0.5, 0.8, 0.4, 0.6, 0.5, 0.9, 0.7])]  # looked at after every pair
[False, False, False, False, False, False, True]
"""

from __future__ import annotations

from noisytune.errors import MissingExtraError

try:
    import scipy as _  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("noisytune.report.statistics needs SciPy: run  pip install 'noisytune[report]'") from error

from noisytune.report.statistics.e_process import e_values, needed
from noisytune.report.statistics.intervals import critical_t
from noisytune.report.statistics.planning import Plan, Stops, plan
from noisytune.report.statistics.power import chance_of_t, first_to_settle, pairs_needed, selection_bias

__all__ = [
    "Plan",
    "Stops",
    "chance_of_t",
    "critical_t",
    "e_values",
    "first_to_settle",
    "needed",
    "pairs_needed",
    "plan",
    "selection_bias",
]
