"""NoisyTune on top of other methods: which arms make pairs, and what the figure says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from noisytune.records import StudyRecord, TrialRecord
from noisytune.report import render_html
from noisytune.report.evidence.combinations import combinations, pooled_combinations
from noisytune.report.evidence.pairs import gather

Build = Callable[..., tuple[StudyRecord, list[TrialRecord]]]
NOISE, RECADAM, MIXOUT = {"method": "noisytune", "noise_lambda": 0.15}, {"method": "recadam"}, {"method": "mixout"}
METHODS: dict[str, list[dict[str, Any]]] = {
    "noisytune": [NOISE],
    "recadam": [RECADAM],
    "noisytune+recadam": [NOISE, RECADAM],
    "mixout": [MIXOUT],
    "noisytune+mixout(p=0.8)": [NOISE, MIXOUT | {"p": 0.8}],
}
GAINS = {
    "noisytune": [1.0, 0.2, -0.5, 0.7],
    "recadam": [0.3, 0.2, 0.9, -0.4],
    "noisytune+recadam": [1.3, 0.1, 0.9, 0.5],
    "mixout": [0.1, 0.2, 0.3, 0.4],
    "noisytune+mixout(p=0.8)": [0.0, 0.1, 0.0, 0.1],
}


def build_with(build: Build, arms: list[str], **changes: Any) -> tuple[StudyRecord, list[TrialRecord]]:
    study, records = build(gains={arm: GAINS[arm] for arm in arms}, lambdas={}, **changes)
    for record in records:
        record.settings["arm"]["methods"] = METHODS.get(record.arm, [])
    return study, records


def test_an_arm_is_paired_with_itself_plus_noise(build: Build) -> None:
    study, records = build_with(build, list(GAINS), tasks=("topics", "replies"))
    found = combinations(gather(study, records))
    assert [(c.task["name"], c.without, c.combined) for c in found] == [
        ("topics", "baseline", "noisytune"),
        ("topics", "recadam", "noisytune+recadam"),
        ("replies", "baseline", "noisytune"),
        ("replies", "recadam", "noisytune+recadam"),
    ]
    gains = np.subtract(GAINS["noisytune+recadam"], GAINS["recadam"])
    assert found[1].summary.mean == pytest.approx(gains.mean())
    interval = stats.ttest_1samp(gains, 0.0).confidence_interval()
    assert (found[1].summary.fixed.low, found[1].summary.fixed.high) == pytest.approx(tuple(interval))
    assert np.subtract(found[1].after, found[1].before) == pytest.approx(gains)


def test_where_less_is_better_of_one_task_the_pooled_gain_is_the_mean_of_the_gains(build: Build) -> None:
    study, records = build_with(build, list(GAINS), tasks=("topics", "chats"))
    fallen = {"kind": "language", "metric": "nll", "metric_label": "nats"}
    study = replace(study, tasks=[task | fallen if task["name"] == "chats" else task for task in study.tasks])
    records = [replace(r, scores={"nll": 2 - r.scores["accuracy"]}) if r.task == "chats" else r for r in records]
    evidence = gather(study, records)
    for row in pooled_combinations(evidence):
        each = [
            c.summary.mean for c in combinations(evidence) if (c.without, c.combined) == (row.without, row.combined)
        ]
        assert row.summary.mean == pytest.approx(np.mean(each))
        assert np.sign(row.summary.mean) == np.sign(each[0]) == np.sign(each[1])


def test_only_seeds_with_both_runs_count(build: Build) -> None:
    study, records = build_with(build, list(GAINS), missing=[("recadam", 1), ("noisytune+recadam", 3)])
    found = {c.without: c for c in combinations(gather(study, records))}
    assert len(found["recadam"].before) == 2
    assert len(found["baseline"].before) == 4


@pytest.mark.parametrize("arms", [["noisytune"], ["recadam", "mixout"], ["noisytune", "mixout"]])
def test_a_study_without_combinations_has_no_such_figure(build: Build, arms: list[str]) -> None:
    study, records = build_with(build, arms)
    assert combinations(gather(study, records)) == []
    assert "Alone and with NoisyTune" not in render_html(study, records)


def test_the_page_shows_the_combinations(build: Build) -> None:
    study, records = build_with(build, list(GAINS))
    page = render_html(study, records)
    assert "Alone and with NoisyTune" in page
    assert "Each method without and with NoisyTune" in page


def test_all_combinations_are_judged_together(build: Build) -> None:
    """Two pairs of arms on two tasks share the 5 % of error; pooled, the two pairs."""
    evidence = gather(*build_with(build, list(GAINS)[:3], tasks=("topics", "replies")))
    assert {c.summary.needed for c in combinations(evidence)} == {4 * 20.0}
    assert {c.summary.needed for c in pooled_combinations(evidence)} == {2 * 20.0}
