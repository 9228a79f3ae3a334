"""Does NoisyTune add to other methods? Each arm against the same arm with noise before it: the paper's Figure 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from noisytune.records import TrialRecord
from noisytune.report.evidence import Evidence
from noisytune.report.paired import Summary, summarise

_NOISE = "noisytune"


@dataclass(frozen=True)
class Combination:
    """One arm without and with NoisyTune on one task, over the seeds of which both are done."""

    task: dict[str, Any]
    """The task's entry in the study."""
    without: str
    """The arm's name, for example ``recadam``, or the baseline's."""
    combined: str
    """The name of the arm with noise, for example ``noisytune(0.15)+recadam``."""
    before: tuple[float, ...]
    """Scores of the arm without noise, points, in the order of the seeds."""
    after: tuple[float, ...]
    summary: Summary
    """Of the paired differences. Its anytime-valid interval holds for all combinations at once."""


def combinations(evidence: Evidence) -> list[Combination]:
    """Every arm of the study that is another arm with NoisyTune before it, with at least one pair.

    Empty unless an arm other than the baseline is among them: that comparison is the study's own.
    """
    methods = {record.arm: record.settings["arm"]["methods"] for record in evidence.trials.values()}
    arms = [arm for arm in evidence.study.arms if arm in methods]
    pairs = [
        (without, combined)
        for without in arms
        for combined in arms
        if [one["method"] for one in methods[combined]].count(_NOISE) == 1
        and [one for one in methods[combined] if one["method"] != _NOISE] == methods[without]
    ]
    if not any(methods[without] for without, _ in pairs):
        return []
    at_once = len(pairs) * len(evidence.study.tasks)
    trials = {(record.task, record.arm, record.seed): record for record in evidence.trials.values()}
    found = []
    for task in evidence.study.tasks:
        for without, combined in pairs:
            both = _both(trials, evidence, task["name"], without, combined)
            if both:
                before, after = zip(*both, strict=True)
                summary = summarise(np.round(np.subtract(after, before), 9), at_once)
                found.append(Combination(task, without, combined, before, after, summary))
    return found


def _both(
    trials: dict[tuple[str, str, int], TrialRecord], evidence: Evidence, task: str, without: str, combined: str
) -> list[tuple[float, float]]:
    scores = []
    for seed in evidence.study.seeds:
        one, other = trials.get((task, without, seed)), trials.get((task, combined, seed))
        if one and other:
            scores.append((evidence.score(one), evidence.score(other)))
    return scores
