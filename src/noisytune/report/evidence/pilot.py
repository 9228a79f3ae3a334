"""What does a study teach about the next one? Spread, difference, and what a trial takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from noisytune.errors import RunFolderError
from noisytune.records import StudyRecord, TrialRecord
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.summary import comparisons_at_once, primary_rows


@dataclass(frozen=True)
class Pilot:
    """One arm of a study."""

    arm: str
    task: str
    pairs: int
    difference: float
    """Points."""
    sd: float
    """Of the differences, points."""
    sd_high: float
    """The upper end of its 80 % interval, for normal differences: a pilot is small."""
    comparisons: int
    """Judged at once."""
    trials: int
    """Of a seed: each arm on each task."""
    waits_for: int
    """Comparisons that ``--until-decided`` waits for: each arm on each task."""
    seconds: float | None
    """Of a trial on average; None where no record says."""


def pilot(study: StudyRecord, records: Iterable[TrialRecord]) -> Pilot:
    """What the arm with the widest spread shows.

    Args:
        study: the plan.
        records: finished trials in any order.

    Raises:
        RunFolderError: no arm has two pairs that differ.
    """
    evidence = gather(study, records)
    known = [row for row in primary_rows(evidence) if row.n > 1 and row.sd > 0.0]
    if not known:
        raise RunFolderError(f"{study.name}: no arm has two pairs that differ: run more seeds, or give --sd")
    row = max(known, key=lambda one: one.sd)
    taken = [r.timing["total"] for r in evidence.trials.values() if r.timing.get("total")]
    high = row.sd * float(np.sqrt((row.n - 1) / stats.chi2.ppf(0.1, row.n - 1)))
    return Pilot(
        arm=row.arm,
        task=row.task,
        pairs=row.n,
        difference=row.difference,
        sd=row.sd,
        sd_high=high,
        comparisons=comparisons_at_once(evidence, over_tasks=row.pooled),
        trials=len(study.arms) * len(study.tasks),
        waits_for=comparisons_at_once(evidence),
        seconds=float(np.mean(taken)) if taken else None,
    )
