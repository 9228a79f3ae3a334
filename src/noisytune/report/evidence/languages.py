"""How does each arm do in each language of a task, and how far is English ahead of the others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noisytune._metrics import METRICS
from noisytune.records import TrialRecord
from noisytune.report.evidence.pairs import Comparison, Evidence, once
from noisytune.report.statistics.intervals import Floats, Interval, fixed_interval
from noisytune.report.statistics.paired import holm
from noisytune.report.statistics.sign_flip import sign_flips

ENGLISH = "en"
FLIPS = 9_999
"""Random sign flips of a language, where not all are looked at: there are many languages."""


@dataclass(frozen=True)
class LanguageCell:
    """One language in one arm; means over the pairs, points."""

    arm: str
    difference: float
    """Mean paired difference from the baseline."""
    parts: tuple[float, ...]
    """Of a metric that is the mean of others: the same of those."""
    p: float
    """Two-sided sign-flip p of this language alone."""
    p_holm: float
    """``p``, Holm-adjusted over the languages and arms of the task."""


@dataclass(frozen=True)
class LanguageRow:
    """One language of a task."""

    code: str
    baseline: float
    """The baseline's mean score, points."""
    parts: tuple[float, ...]
    """Of a metric that is the mean of others: those."""
    cells: tuple[LanguageCell, ...]
    """One an arm."""


@dataclass(frozen=True)
class TransferGap:
    """How far English is ahead of the mean of the other languages in one arm; means over runs, points."""

    arm: str
    english: float
    others: float
    change: float
    """Mean paired difference of the gap from the baseline's; negative: the gap is narrower. NaN for the baseline."""
    interval: Interval
    """Fixed-n 95 % interval of ``change``."""

    @property
    def gap(self) -> float:
        """English minus the mean of the others."""
        return self.english - self.others


@dataclass(frozen=True)
class Languages:
    """One task in its languages."""

    task: dict[str, Any]
    """The task's entry in the study."""
    arms: tuple[str, ...]
    """Those with pairs, in the study's order, without the baseline."""
    pairs: int
    """The fewest of an arm."""
    rows: tuple[LanguageRow, ...]
    """In the order of the task's facts."""
    gaps: tuple[TransferGap, ...]
    """The baseline first; empty where English, or any other language, is not scored."""


@once
def languages(evidence: Evidence) -> list[Languages]:
    """Every task of the study that is scored in several languages, as its facts say, and has a pair."""
    found = []
    for task in evidence.study.tasks:
        codes = [str(code) for code in (task.get("facts") or {}).get("languages", ())]
        compared = [c for c in evidence.comparisons if c.task["name"] == task["name"] and c.pairs]
        if len(codes) > 1 and compared:
            found.append(_of(evidence, task, codes, compared))
    return found


def _of(evidence: Evidence, task: dict[str, Any], codes: list[str], compared: list[Comparison]) -> Languages:
    metric = METRICS.get(task["kind"], {}).get(task["metric"])
    keys = (task["metric"], *(metric.parts if metric else ()))
    baseline = _scores(evidence, evidence.runs[task["name"], evidence.study.arms[0]], codes, keys)
    before = [_scores(evidence, [p.baseline for p in c.pairs], codes, keys) for c in compared]
    after = [_scores(evidence, [p.arm for p in c.pairs], codes, keys) for c in compared]
    # Rounded as the differences of pairs are: equal ones of decimal scores are equal numbers.
    gains = [np.round(b - a, 9) for a, b in zip(before, after, strict=True)]
    p = [flip.p for flip in sign_flips([one for gain in gains for one in gain[:, :, 0].T], flips=FLIPS)]
    tests = np.array([p, holm(p)]).reshape(2, len(compared), len(codes))
    rows = []
    for place, code in enumerate(codes):
        level, *parts = baseline[:, place].mean(axis=0).tolist()
        cells = []
        for c, gain, one, adjusted in zip(compared, gains, *tests[:, :, place], strict=True):
            mean, *of_parts = gain[:, place].mean(axis=0).tolist()
            cells.append(LanguageCell(c.arm, mean, tuple(of_parts), float(one), float(adjusted)))
        rows.append(LanguageRow(code, level, tuple(parts), tuple(cells)))
    arms, pairs = tuple(c.arm for c in compared), min(len(c.pairs) for c in compared)
    gaps = []
    if ENGLISH in codes:
        english = codes.index(ENGLISH)
        gaps = [_gap(evidence.study.arms[0], baseline, english, None)]
        gaps += [_gap(c.arm, b, english, a) for c, a, b in zip(compared, before, after, strict=True)]
    return Languages(task, arms, pairs, tuple(rows), tuple(gaps))


def _scores(evidence: Evidence, records: Sequence[TrialRecord], codes: list[str], keys: Sequence[str]) -> Floats:
    """Shape (runs, languages, metrics), points. An undefined score counts as the worst of the study."""
    worst = {key: evidence.worst.get(key, 0.0) for key in keys}
    table = np.empty((len(records), len(codes), len(keys)))
    for row, record in zip(table, records, strict=True):
        for cell, code in zip(row, codes, strict=True):
            scores = record.evaluations.get(code, {}).get("scores", {})
            cell[:] = [scores.get(key, low) for key, low in worst.items()]
    return 100.0 * table


def _gap(arm: str, scores: Floats, english: int, before: Floats | None) -> TransferGap:
    """``before``: the baselines of the pairs whose arms ``scores`` are of."""

    def gaps(of: Floats) -> Floats:
        return np.asarray(of[:, english, 0] - np.delete(of[:, :, 0], english, axis=1).mean(axis=1))

    own = scores[:, :, 0].mean(axis=0)
    change, interval = float("nan"), Interval(-np.inf, np.inf)
    if before is not None:
        differences = np.round(gaps(scores) - gaps(before), 9)
        change, interval = float(differences.mean()), fixed_interval(differences)
    return TransferGap(arm, float(own[english]), float(np.delete(own, english).mean()), change, interval)
