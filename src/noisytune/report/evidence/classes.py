"""Which classes does each arm get right? Precision, recall and F1 of each class, averaged over runs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from noisytune._metrics import PER_CLASS
from noisytune.report.evidence.items import items_of
from noisytune.report.evidence.pairs import Evidence, once

CLASSES_UP_TO = 20
"""Classes of a task up to which they are shown."""
RUNS_UP_TO = 20
"""Runs of an arm that are looked at in a large study."""


@dataclass(frozen=True)
class ClassRow:
    """One class in one arm; means over its runs, points. NaN where a number is undefined in every run."""

    task: str
    label: str
    n: int
    """Its examples."""
    arm: str
    runs: int
    precision: float
    recall: float
    f1: float


@once
def class_rows(evidence: Evidence) -> list[ClassRow]:
    """Task by task, class by class, arm by arm; none of a task with many classes or without predictions."""
    rows = []
    for task in evidence.study.tasks:
        of, labels = PER_CLASS.get(task["kind"]), task["labels"]
        if of is None or not 0 < len(labels) <= CLASSES_UP_TO:
            continue
        found = {}
        for arm in evidence.study.arms:
            runs = evidence.runs[task["name"], arm]
            each = map(items_of, runs if evidence.few else runs[:RUNS_UP_TO])
            known = [of(items, len(labels)) for items in each if len(items)]
            if known:
                found[arm] = len(known), _means(np.stack(known))
        for place, label in enumerate(labels):
            for arm, (n, means) in found.items():
                numbers = [100.0 * float(value) for value in means[place, 1:]]
                rows.append(ClassRow(task["name"], label, round(means[place, 0]), arm, n, *numbers))
    return rows


def _means(each: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        return np.asarray(np.nanmean(each, axis=0))
