"""What was chosen from many trainings: how much of the gain is the choice, and how much would chance give?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from noisytune._metrics import direction
from noisytune.records import TrialRecord
from noisytune.report.evidence.pairs import Evidence, once
from noisytune.report.statistics.power import selection_bias


@dataclass(frozen=True)
class ChoiceRow:
    """One arm whose trials are the best of several; means over the seeds, points."""

    arm: str
    trained: int
    """Whole trainings of each seed that were chosen from."""
    trainings: float
    """What the candidates of a seed cost together, in whole trainings."""
    chosen_by: float
    """The chosen one's score on what was held out, by which it was chosen: it flatters."""
    score: float
    """The chosen one's score where nothing was chosen."""
    mean: float
    """The mean of all that were trained, there."""
    gain: float
    """What choosing gained there: above 0 is better."""
    highest: float
    """What it would gain at most by chance: the expected best of so many draws with the spread of these, above their
    mean. NaN of one training."""


@once
def choice_rows(evidence: Evidence) -> list[ChoiceRow]:
    """One row an arm, in the study's order; none where nothing was chosen."""
    (task, *others) = evidence.study.tasks
    if others:
        return []
    rows = []
    for arm in evidence.study.arms:
        records = [record for record in evidence.trials.values() if record.arm == arm and "chosen" in record.applied]
        if records:
            rows.append(_row(arm, records, direction(task["kind"], task["metric"])))
    return rows


def _row(arm: str, records: list[TrialRecord], better: int) -> ChoiceRow:
    told = [record.applied["chosen"] for record in records]
    scores = [_points(one["score"] for one in facts["from"]) for facts in told]
    best = [next(one for one in facts["from"] if one["number"] == facts["number"]) for facts in told]
    chosen = _points(one["score"] for one in best)
    spreads = [float(np.nanstd(each, ddof=1)) for each in scores if np.isfinite(each).sum() > 1]
    trained = round(float(np.mean([len(each) for each in scores])))
    mean = float(np.mean([_mean(each) for each in scores]))
    return ChoiceRow(
        arm=arm,
        trained=trained,
        trainings=float(told[0]["trainings"]),
        chosen_by=_mean(_points(one["chosen_by"] for one in best)),
        score=_mean(chosen),
        mean=mean,
        gain=better * (_mean(chosen) - mean),
        highest=selection_bias(trained) * math.sqrt(float(np.mean(np.square(spreads)))) if spreads else math.nan,
    )


def _points(values: Iterable[float | None]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([math.nan if value is None else 100.0 * value for value in values])


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
