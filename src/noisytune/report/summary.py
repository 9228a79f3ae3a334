"""What does each comparison of a study show? One row per task and arm, and the verdict on each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from noisytune.records import StudyRecord, TrialRecord
from noisytune.report.evidence import Comparison, Evidence, Pair, gather
from noisytune.report.paired import ALPHA, Summary, Verdict, anytime_interval, holm, judge, pooled, summarise


@dataclass(frozen=True)
class SummaryRow:
    """One comparison in numbers; scores and differences in points."""

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
    """Anytime-valid 95 % interval, simultaneous over the study's comparisons; infinite where too few pairs bound it."""
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
    """``p``, Holm-adjusted over the study's comparisons."""
    verdict: Verdict
    detectable: float
    """Difference that the anytime-valid interval tells from 0 at this n and spread in 80 % of studies."""
    detectable_fixed: float
    """The same for the fixed-n t test."""
    sd: float
    """Of the differences."""


def comparisons_at_once(evidence: Evidence, *, over_tasks: bool = False) -> int:
    """How many intervals have to hold together: arms x tasks, or the arms alone where the tasks are pooled."""
    return max(1, len(evidence.study.arms) - 1 if over_tasks else len(evidence.comparisons))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _row(
    evidence: Evidence, members: list[Comparison], stats: Summary, before: list[float], after: list[float]
) -> SummaryRow:
    several, first = len(members) > 1, members[0]
    return SummaryRow(
        task=f"all {len(members)} tasks" if several else first.task["name"],
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
        verdict=judge(stats.anytime, evidence.study.margin),
        detectable=stats.detectable,
        detectable_fixed=stats.detectable_fixed,
        sd=stats.sd,
    )


def _holm_adjusted(rows: list[SummaryRow]) -> list[SummaryRow]:
    return [SummaryRow(**{**row.__dict__, "p_holm": p}) for row, p in zip(rows, holm([r.p for r in rows]), strict=True)]


def task_rows(evidence: Evidence) -> list[SummaryRow]:
    """One row per task and arm, task by task."""
    k = comparisons_at_once(evidence)
    rows = [
        _row(evidence, [c], summarise(c.differences, k), [p.before for p in c.pairs], [p.after for p in c.pairs])
        for c in evidence.comparisons
    ]
    return _holm_adjusted(rows)


def seed_blocks(evidence: Evidence, arm: str) -> list[list[Pair]]:
    """The arm's pairs of each seed, one a task, for the seeds where every task has one."""
    by_seed = [{pair.seed: pair for pair in c.pairs} for c in evidence.comparisons if c.arm == arm]
    complete = [seed for seed in evidence.study.seeds if all(seed in pairs for pairs in by_seed)]
    return [[pairs[seed] for pairs in by_seed] for seed in complete]


def pooled_rows(evidence: Evidence) -> list[SummaryRow]:
    """The primary comparison of a study with several tasks, one row per arm; empty with one task."""
    if len(evidence.study.tasks) < 2:
        return []
    rows = []
    for arm in evidence.study.arms[1:]:
        members = [c for c in evidence.comparisons if c.arm == arm]
        blocks = seed_blocks(evidence, arm)
        table = np.array([[p.difference for p in block] for block in blocks]).reshape(len(blocks), len(members))
        stats = pooled(table, comparisons_at_once(evidence, over_tasks=True))
        flat = [p for block in blocks for p in block]
        rows.append(_row(evidence, members, stats, [p.before for p in flat], [p.after for p in flat]))
    return _holm_adjusted(rows)


def primary_rows(evidence: Evidence) -> list[SummaryRow]:
    """The rows that the study was run for: pooled over tasks where there are several."""
    return pooled_rows(evidence) or task_rows(evidence)


def summary_rows(study: StudyRecord, records: Iterable[TrialRecord]) -> list[SummaryRow]:
    """Rows for a table: each arm on each task, then each arm over all tasks where there are several.

    Args:
        study: the plan.
        records: finished trials in any order; those of other plans are left out.
    """
    evidence = gather(study, records)
    return task_rows(evidence) + pooled_rows(evidence)


def decided(study: StudyRecord, records: Iterable[TrialRecord]) -> bool:
    """Whether no arm on any task is inconclusive any more, so that adding seeds may stop.

    The anytime-valid interval alone decides, so it is safe to ask after every trial.
    """
    evidence = gather(study, records)
    alpha = ALPHA / comparisons_at_once(evidence)
    return all(
        judge(anytime_interval(c.differences, alpha), study.margin) is not Verdict.INCONCLUSIVE
        for c in evidence.comparisons
    )
