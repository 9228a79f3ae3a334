"""What do many trials look like together? A line for each task and arm, where a line for each trial is too many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from noisytune.report.evidence.pairs import Comparison, Evidence

ITEM_PAIRS = 200
"""Pairs of a large study whose single predictions are looked at."""


@dataclass(frozen=True)
class TrialGroup:
    """All trials of one arm on one task; scores in points."""

    task: str
    arm: str
    done: int
    planned: int
    mean: float
    sd: float
    """NaN below two trials, as the other numbers are where none is done."""
    lowest: float
    highest: float
    failed: dict[str, int]
    """How many collapsed, diverged or stayed untrained; empty where every run ended well."""
    seconds: float
    """Of training, on average."""


def trial_groups(evidence: Evidence) -> list[TrialGroup]:
    """Task by task, arm by arm."""
    planned = Counter((row["task"], row["arm"]) for row in evidence.study.trials)
    groups = []
    for (task, arm), mine in evidence.runs.items():
        scores = np.array([evidence.score(record) for record in mine])
        seconds = [record.timing["train"] for record in mine if "train" in record.timing]
        groups.append(
            TrialGroup(
                task=task,
                arm=arm,
                done=len(mine),
                planned=planned[task, arm],
                mean=float(scores.mean()) if mine else np.nan,
                sd=float(scores.std(ddof=1)) if len(mine) > 1 else np.nan,
                lowest=float(scores.min()) if mine else np.nan,
                highest=float(scores.max()) if mine else np.nan,
                failed=dict(sorted(Counter(r.status for r in mine if r.status != "ok").items())),
                seconds=float(np.mean(seconds)) if seconds else np.nan,
            )
        )
    return groups


def first_seeds(evidence: Evidence) -> tuple[Comparison, ...]:
    """The comparisons; of a large study the first `ITEM_PAIRS` pairs, spread over all, or two of each."""
    if evidence.few or not evidence.comparisons:
        return evidence.comparisons
    most = max(2, ITEM_PAIRS // len(evidence.comparisons))
    return tuple(replace(c, pairs=c.pairs[:most]) for c in evidence.comparisons)
