"""What did the search for the arms' settings find, and how much of that would chance find too?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from noisytune._metrics import direction
from noisytune.report.evidence.pairs import Evidence, once
from noisytune.report.statistics.power import selection_bias


@dataclass(frozen=True)
class SearchTrial:
    """One trial of one arm's search."""

    number: int
    """From 1."""
    seed: int
    settings: dict[str, float]
    score: float
    """Points; NaN where there is none."""
    best: float
    """The arm's best score so far, points; NaN while there is none."""


@dataclass(frozen=True)
class SearchRow:
    """One arm's search, and the runs of its winner in the study."""

    asked: str
    """The arm as the user wrote it."""
    arm: str
    """The arm of the study: its name has the strength that won."""
    trials: tuple[SearchTrial, ...]
    winner: SearchTrial
    reruns: tuple[float, ...]
    """The winner's scores with fresh seeds, points, in the order of the seeds."""

    @property
    def unscored(self) -> int:
        """Trials without a score."""
        return sum(math.isnan(trial.score) for trial in self.trials)

    @property
    def mean(self) -> float:
        """Of the re-runs, points; NaN before the first."""
        return float(np.mean(self.reruns)) if self.reruns else math.nan

    @property
    def sd(self) -> float:
        """Of the re-runs, points; NaN before the second."""
        return float(np.std(self.reruns, ddof=1)) if len(self.reruns) > 1 else math.nan


@once
def search_rows(evidence: Evidence) -> list[SearchRow]:
    """One row an arm, the baseline first; none where the study searched nothing."""
    rows = []
    better = np.fmax if all(direction(task["kind"], task["metric"]) > 0 for task in evidence.study.tasks) else np.fmin
    for arm in (evidence.study.search or {"arms": []})["arms"]:
        trials = _trials(arm["trials"], better)
        reruns = [evidence.score(record) for record in evidence.trials.values() if record.arm == arm["arm"]]
        rows.append(SearchRow(arm["asked"], arm["arm"], trials, trials[arm["winner"]], tuple(reruns)))
    return rows


def _trials(told: list[dict[str, Any]], better: np.ufunc) -> tuple[SearchTrial, ...]:
    found, best = [], math.nan
    for trial in told:
        score = math.nan if trial["value"] is None else 100.0 * trial["value"]
        best = better(best, score)
        found.append(SearchTrial(trial["number"] + 1, trial["seed"], trial["settings"], score, float(best)))
    return tuple(found)


def seed_spread(rows: list[SearchRow]) -> float:
    """Standard deviation of one setting's scores over seeds, points, pooled over the arms' re-runs; NaN if unknown.

    Nothing but the seed differs between them, so this is what scores do without any reason.
    """
    several = [row.reruns for row in rows if len(row.reruns) > 1]
    freedom = sum(len(scores) - 1 for scores in several)
    squares = sum(float(np.var(scores, ddof=1)) * (len(scores) - 1) for scores in several)
    return math.sqrt(squares / freedom) if freedom else math.nan


def gain_by_chance(rows: list[SearchRow], budget: int) -> float:
    """How far the best of ``budget`` trials lies above their mean if no setting does anything, points; NaN if unknown.

    The expected maximum of n standard normal draws, n ∫ x φ(x) Φ(x)ⁿ⁻¹ dx
    (`noisytune.report.statistics.power.selection_bias`), times `seed_spread`.
    """
    return selection_bias(budget) * seed_spread(rows)
