"""What does each comparison of a study show? One row per task and arm, and the verdict on each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from noisytune.records import StudyRecord, TrialRecord
from noisytune.report.evidence.pairs import Comparison, Evidence, Pair, all_of, gather, once
from noisytune.report.statistics.e_process import needed, sign_evidence
from noisytune.report.statistics.intervals import ALPHA, Floats, Interval, anytime_interval
from noisytune.report.statistics.paired import (
    Summary,
    Verdict,
    holm,
    judge,
    judge_by_interval,
    pooled_all,
    summarise_all,
)
from noisytune.report.statistics.practical import Chances, chances


@dataclass(frozen=True)
class SummaryRow:
    """One comparison in numbers; scores and differences in points.

    Example: at the head of `noisytune.report`.
    """

    task: str
    arm: str
    label: str
    """The arm for a sentence, for example ``NoisyTune (λ = 0.15)``."""
    pooled: bool
    """Whether this is the mean over all tasks: then a pair is a seed with every task done."""
    n: int
    planned: int
    """Pairs in the plan."""
    baseline_mean: float
    arm_mean: float
    difference: float
    """Mean paired difference, arm minus baseline; NaN without a pair, as the two means."""
    low: float
    """Anytime-valid 95 % interval, simultaneous over the comparisons that have begun; infinite where too few pairs or
    too many equal differences leave it unbounded."""
    high: float
    fixed_low: float
    """Fixed-n paired-t 95 % interval of this comparison alone."""
    fixed_high: float
    wins: int
    ties: int
    losses: int
    p: float
    """Two-sided sign-flip p."""
    p_exact: bool
    """Whether every flip was looked at."""
    p_holm: float
    """``p``, Holm-adjusted over the study's comparisons that have begun."""
    verdict: Verdict
    detectable: float
    """Difference for which ``e`` reaches ``e_needed`` at this n and spread in about 80 % of studies."""
    detectable_fixed: float
    """The same for the fixed-n t test."""
    sd: float
    """Of the differences."""
    failed: dict[str, int]
    """How many runs of its pairs collapsed, diverged or stayed untrained, baselines included; empty where none did."""
    judged: bool
    """Whether each of the tasks has a pair of which both runs are ok; else the verdict is inconclusive."""
    e: float
    """Evidence that the arm does anything, from the signs: exact for any distribution, however often one looks."""
    e_needed: float
    """What ``e`` must reach: 20 for each comparison that is judged beside others."""
    by_interval: Verdict
    """What the interval alone would say, were the differences normal; the verdict, where no pair can be judged."""
    iqm: float
    """Interquartile mean of the differences."""
    chances: Chances
    """How probable a practical difference is."""


def comparisons_at_once(evidence: Evidence, *, over_tasks: bool = False) -> int:
    """How many intervals have to hold together: arms x tasks, or the arms alone where the tasks are pooled.

    An arm of which no trial is finished does not count, nor one that is shown beside the others and not judged.
    """
    return max(1, len(evidence.begun) * (1 if over_tasks else len(evidence.study.tasks)))


def _judged(members: Iterable[Comparison]) -> bool:
    return all(any(pair.both_ok for pair in c.pairs) for c in members)


UNBOUNDED = Interval(-math.inf, math.inf)


def _bounded(members: Iterable[Comparison], stats: Summary) -> Summary:
    """A loss that nobody knows may be of any size: no interval holds it, and nothing is equivalent or not worse."""
    return stats if all(c.is_bounded for c in members) else replace(stats, anytime=UNBOUNDED)


def _failed(members: Iterable[Comparison]) -> dict[str, int]:
    runs = (run for c in members for pair in c.pairs for run in (pair.baseline, pair.arm))
    return dict(sorted(Counter(run.status for run in runs if run.status != "ok").items()))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _row(
    evidence: Evidence, members: list[Comparison], stats: Summary, before: list[float], after: list[float]
) -> SummaryRow:
    several, first, margin = len(members) > 1, members[0], evidence.study.margin
    stats = _bounded(members, stats)
    # Scores of runs that all failed say nothing about the arm, however alike they are.
    judged, unknown = _judged(members), Verdict.INCONCLUSIVE
    return SummaryRow(
        task=all_of([member.task for member in members]) if several else first.task["name"],
        arm=first.arm,
        label=first.label,
        pooled=several,
        n=stats.n,
        planned=min(c.planned for c in members),
        baseline_mean=_mean(before),
        arm_mean=_mean(after),
        difference=stats.mean,
        low=stats.anytime.low,
        high=stats.anytime.high,
        fixed_low=stats.fixed.low,
        fixed_high=stats.fixed.high,
        wins=stats.wins,
        ties=stats.ties,
        losses=stats.losses,
        p=stats.sign_flip.p,
        p_exact=stats.sign_flip.exact,
        p_holm=stats.sign_flip.p,
        verdict=judge(stats.evidence, stats.needed, stats.mean, stats.anytime, margin) if judged else unknown,
        detectable=stats.detectable,
        detectable_fixed=stats.detectable_fixed,
        sd=stats.sd,
        failed=_failed(members),
        judged=judged,
        e=stats.evidence.e,
        e_needed=stats.needed,
        by_interval=judge_by_interval(stats.anytime, margin) if judged else unknown,
        iqm=stats.iqm,
        chances=chances(stats.n, stats.mean, stats.sd, margin),
    )


def _holm_adjusted(evidence: Evidence, rows: list[SummaryRow]) -> list[SummaryRow]:
    begun = [i for i, row in enumerate(rows) if row.arm in evidence.begun]
    adjusted = dict(zip(begun, holm([rows[i].p for i in begun]), strict=True))
    return [replace(row, p_holm=adjusted.get(i, row.p)) for i, row in enumerate(rows)]


@once
def task_rows(evidence: Evidence) -> list[SummaryRow]:
    """One row per task and arm, task by task."""
    found = summarise_all([c.differences for c in evidence.comparisons], comparisons_at_once(evidence))
    rows = [
        _row(evidence, [c], stats, [p.before for p in c.pairs], [p.after for p in c.pairs])
        for c, stats in zip(evidence.comparisons, found, strict=True)
    ]
    return _holm_adjusted(evidence, rows)


@once
def seed_blocks(evidence: Evidence) -> dict[str, list[list[Pair]]]:
    """Each arm's pairs of each seed, one a task, for the seeds where every task has one."""
    blocks = {}
    for arm in evidence.study.arms[1:]:
        by_seed = [{pair.seed: pair for pair in c.pairs} for c in evidence.comparisons if c.arm == arm]
        complete = [seed for seed in evidence.study.seeds if all(seed in pairs for pairs in by_seed)]
        blocks[arm] = [[pairs[seed] for pairs in by_seed] for seed in complete]
    return blocks


@once
def pooled_rows(evidence: Evidence) -> list[SummaryRow]:
    """The primary comparison of a study with several tasks, one row per arm; empty with one task."""
    return grouped_rows(evidence, [[task["name"]] for task in evidence.study.tasks])


def grouped_rows(evidence: Evidence, groups: Sequence[Sequence[str]]) -> list[SummaryRow]:
    """One row per arm of the mean over groups of the mean over each group's tasks; empty with one task.

    Args:
        evidence: of one study.
        groups: every task of the study in one of them.
    """
    names = [task["name"] for task in evidence.study.tasks]
    if len(names) < 2:
        return []
    share = np.array([[(name in group) / len(group) for group in groups] for name in names])
    blocks = seed_blocks(evidence)

    def by_group(side: str, of_arm: list[list[Pair]]) -> Floats:
        values = [[getattr(pair, side) for pair in block] for block in of_arm]
        return np.asarray(np.array(values).reshape(-1, len(names)) @ share)

    # Rounded like the differences of single pairs: equal ones are ties.
    tables = [np.round(by_group("difference", of_arm), 9) for of_arm in blocks.values()]
    found = pooled_all(tables, comparisons_at_once(evidence, over_tasks=True))
    rows = []
    for (arm, of_arm), stats in zip(blocks.items(), found, strict=True):
        members = [c for c in evidence.comparisons if c.arm == arm]
        before, after = (by_group(side, of_arm).ravel().tolist() for side in ("before", "after"))
        rows.append(_row(evidence, members, stats, before, after))
    return _holm_adjusted(evidence, rows)


def primary_rows(evidence: Evidence) -> list[SummaryRow]:
    """The rows that the study was run for: pooled over tasks where there are several; of arms that are judged."""
    rows = pooled_rows(evidence) or task_rows(evidence)
    return [row for row in rows if row.arm not in evidence.beside]


def members(evidence: Evidence, row: SummaryRow) -> list[Comparison]:
    """The comparisons behind a row: one, or one a task where tasks are pooled."""
    return [c for c in evidence.comparisons if c.arm == row.arm and (row.pooled or c.task["name"] == row.task)]


def differences(evidence: Evidence, row: SummaryRow) -> Floats:
    """The differences behind a row, points, in the order of the seeds; per-seed means where tasks are pooled."""
    if row.pooled:
        return np.array([np.mean([p.difference for p in block]) for block in seed_blocks(evidence)[row.arm]])
    return members(evidence, row)[0].differences


def summary_rows(study: StudyRecord, records: Iterable[TrialRecord]) -> list[SummaryRow]:
    """Rows for a table: each arm on each task, then each arm over all tasks where there are several.

    Args:
        study: the plan.
        records: finished trials in any order; those of other plans are left out.

    Example: at the head of `noisytune.report`.
    """
    evidence = gather(study, records)
    return task_rows(evidence) + pooled_rows(evidence)


def decided(study: StudyRecord, records: Iterable[TrialRecord], arms: Sequence[str] | None = None) -> bool:
    """Whether no arm on any task is inconclusive any more, so that adding seeds may stop.

    What decides holds at every number of pairs at once, so it is safe to ask after every trial.

    Args:
        study: the plan.
        records: finished trials in any order.
        arms: those to look at, the baseline's name passed over; by default all of which a trial is finished.

    Returns:
        False also where there is nothing to look at, or an arm is not in the study or has not begun.

    Example: at the head of `noisytune.report`.
    """
    evidence = gather(study, records)
    at_once = comparisons_at_once(evidence)
    wanted = [arm for arm in (evidence.begun if arms is None else arms) if arm != study.arms[0]]
    return bool(wanted) and all(
        arm in evidence.begun and all(_settled(c, at_once, study.margin) for c in evidence.comparisons if c.arm == arm)
        for arm in wanted
    )


def _settled(comparison: Comparison, at_once: int, margin: float) -> bool:
    """Whether its verdict is not inconclusive, in less time than its row takes."""
    found = comparison.differences
    mean = _mean(found.tolist())
    interval = anytime_interval(found, ALPHA / at_once) if comparison.is_bounded else UNBOUNDED
    verdict = judge(sign_evidence(found), needed(at_once), mean, interval, margin)
    return _judged([comparison]) and verdict is not Verdict.INCONCLUSIVE
