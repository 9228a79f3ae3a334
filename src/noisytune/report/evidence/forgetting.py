"""What does training cost a language model elsewhere? Scores on a text that was not trained on, before and after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noisytune.report.evidence.pairs import Evidence

METRIC = "nll"
"""Of any text, whatever the task's own metric is."""


@dataclass(frozen=True)
class Forgetting:
    """Of one task; means over the finished runs, points."""

    task: str
    split: str
    """The name of the text."""
    before: float
    """Of the model before training and without noise."""
    after: dict[str, float]
    """By arm, in the study's order."""


def forgetting(evidence: Evidence) -> list[Forgetting]:
    """One for each task that watches a text; none of arms that have no run with a score there."""
    found = []
    for task in evidence.study.tasks:
        runs = {arm: evidence.runs[task["name"], arm] for arm in evidence.study.arms}
        told = [(arm, name, one) for arm, mine in runs.items() for r in mine for name, one in r.evaluations.items()]
        watched = [
            (arm, name, one["before"][METRIC], one["scores"][METRIC])
            for arm, name, one in told
            if METRIC in one.get("before", {}) and METRIC in one["scores"]
        ]
        for split in dict.fromkeys(name for _, name, _, _ in watched):
            rows = [(arm, before, after) for arm, name, before, after in watched if name == split]
            means = {arm: 100 * float(np.mean([after for a, _, after in rows if a == arm])) for arm, _, _ in rows}
            before = 100 * float(np.mean([before for _, before, _ in rows]))
            found.append(Forgetting(task["name"], split, before, means))
    return found
