"""How far did training move the parameters of each role? The paper's Figure 5, from what every trial records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noisytune._perturb.names import ROLE_PATTERNS
from noisytune.records import TrialRecord
from noisytune.report.evidence.pairs import Evidence, once
from noisytune.report.statistics.intervals import Interval, fixed_interval

_ORDER = [*(role for role, _ in ROLE_PATTERNS), "other"]


@dataclass(frozen=True)
class Movement:
    """The parameters of one role in one arm; percent, means over the runs that every arm has."""

    role: str
    """As in `noisytune._perturb.names.ROLE_PATTERNS`."""
    arm: str
    n: int
    """Runs: tasks x seeds."""
    moved: float
    """|W1 - W0| / |W0| x 100, L1 norms, W0 before and W1 after training."""
    grown: float
    """(|W1| - |W0|) / |W0| x 100: how much longer the weights are."""
    against: float
    """How much farther than the baseline, in percent of its mean ``moved``; negative: it moved less."""
    interval: Interval
    """Fixed-n 95 % interval of ``against``, paired by task and seed."""


@once
def movements(evidence: Evidence) -> list[Movement]:
    """Every role of pretrained parameters in every arm that has runs; empty where no trial recorded norms.

    A new head is left out: it starts from nothing.
    """
    by_run: dict[tuple[str, int], dict[str, TrialRecord]] = {}
    for record in evidence.trials.values():
        if record.norms:
            by_run.setdefault((record.task, record.seed), {})[record.arm] = record
    begun = {arm for arms in by_run.values() for arm in arms}
    arms = [arm for arm in evidence.study.arms if arm in begun]
    runs = [found for found in by_run.values() if len(found) == len(arms)]
    if not runs or arms[0] != evidence.study.arms[0]:
        return []
    found = []
    for role in _ORDER:
        if role == "head" or any(role not in record.norms for run in runs for record in run.values()):
            continue
        moved = {arm: np.array([_share(run[arm], role, "moved") for run in runs]) for arm in arms}
        usual = float(moved[arms[0]].mean())
        if usual == 0.0:
            continue
        for arm in arms:
            against = 100.0 * (moved[arm] - moved[arms[0]]) / usual
            grown = [_share(run[arm], role, "after") - 100.0 for run in runs]
            found.append(
                Movement(
                    role=role,
                    arm=arm,
                    n=len(runs),
                    moved=float(moved[arm].mean()),
                    grown=float(np.mean(grown)),
                    against=float(against.mean()),
                    interval=fixed_interval(against),
                )
            )
    return found


def _share(record: TrialRecord, role: str, what: str) -> float:
    norms = record.norms[role]
    return 100.0 * norms[what] / norms["before"] if norms["before"] else 0.0
