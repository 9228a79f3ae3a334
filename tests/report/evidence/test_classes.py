"""Scores of each class are scikit-learn's, averaged over runs."""

import numpy as np
import pytest
from support.records import synthetic

from noisytune.report.evidence.classes import CLASSES_UP_TO, class_rows
from noisytune.report.evidence.pairs import gather

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")


def test_they_are_scikit_learns() -> None:
    study, records = synthetic(arms=2, seeds=3, examples=60, classes=3)
    rows = class_rows(gather(study, records))
    assert [(row.label, row.arm) for row in rows] == [(f"class {i}", arm) for i in range(3) for arm in study.arms]
    for place, row in enumerate(rows):
        runs = [record for record in records if record.arm == row.arm]
        each = [
            metrics.precision_recall_fscore_support(r.references, r.predictions, labels=[0, 1, 2], zero_division=np.nan)
            for r in runs
        ]
        expected = np.nanmean(np.array([[of[place // 2] for of in run] for run in each], dtype=float), axis=0)
        assert (row.precision, row.recall, row.f1) == pytest.approx(tuple(100 * expected[:3]))
        assert row.n == expected[3]


def test_many_classes_are_left_out() -> None:
    assert class_rows(gather(*synthetic(classes=CLASSES_UP_TO + 1))) == []
