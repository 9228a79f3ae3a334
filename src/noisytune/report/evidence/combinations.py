"""Does NoisyTune add to other methods? Each arm against the same arm with noise before it: the paper's Figure 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from noisytune._metrics import direction
from noisytune.records import TrialRecord
from noisytune.report.evidence.pairs import Evidence, all_of, once
from noisytune.report.statistics.paired import Summary, summarise

_NOISE = "noisytune"


@dataclass(frozen=True)
class Combination:
    """One arm without and with NoisyTune on one task, over the seeds of which both are done."""

    task: dict[str, Any]
    """The task's entry in the study; of all tasks together their common name and metric."""
    without: str
    """The arm's name, for example ``recadam``, or the baseline's."""
    combined: str
    """The name of the arm with noise, for example ``noisytune(0.15)+recadam``."""
    seeds: tuple[int, ...]
    """Of which both are done."""
    before: tuple[float, ...]
    """Scores of the arm without noise, points, in the order of the seeds."""
    after: tuple[float, ...]
    summary: Summary
    """Of the paired differences. Its anytime-valid interval holds for all combinations at once."""


@once
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
                seeds, before, after = zip(*both, strict=True)
                better = direction(task["kind"], task["metric"])
                summary = summarise(np.round(better * np.subtract(after, before), 9), at_once)
                found.append(Combination(task, without, combined, seeds, before, after, summary))
    return found


@once
def pooled_combinations(evidence: Evidence) -> list[Combination]:
    """`combinations` of the means over all tasks, over the seeds of which every task is done; empty with one task."""
    tasks, each = evidence.study.tasks, combinations(evidence)
    labels = {task["metric_label"] for task in tasks}
    whole = {"name": all_of(tasks), "metric_label": labels.pop() if len(labels) == 1 else "mean score"}
    found = []
    for without, combined in dict.fromkeys((c.without, c.combined) for c in each):
        mine = [c for c in each if (c.without, c.combined) == (without, combined)]
        seeds = set.intersection(*(set(c.seeds) for c in mine))
        if len(mine) < len(tasks) or len(tasks) < 2 or not seeds:
            continue
        kept = tuple(seed for seed in evidence.study.seeds if seed in seeds)
        tables = [
            np.array([[getattr(c, side)[c.seeds.index(seed)] for c in mine] for seed in kept])
            for side in ("before", "after")
        ]
        better = [direction(c.task["kind"], c.task["metric"]) for c in mine]
        gained = ((tables[1] - tables[0]) * better).mean(axis=1)
        before, after = (tuple(table.mean(axis=1).tolist()) for table in tables)
        gains = summarise(np.round(gained, 9), len(each) // len(tasks))
        found.append(Combination(whole, without, combined, kept, before, after, gains))
    return found


def _both(
    trials: dict[tuple[str, str, int], TrialRecord], evidence: Evidence, task: str, without: str, combined: str
) -> list[tuple[int, float, float]]:
    scores = []
    for seed in evidence.study.seeds:
        one, other = trials.get((task, without, seed)), trials.get((task, combined, seed))
        if one and other:
            scores.append((seed, evidence.score(one), evidence.score(other)))
    return scores
