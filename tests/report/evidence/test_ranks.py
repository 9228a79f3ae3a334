"""Average ranks against a loop, and where there are none."""

from dataclasses import replace

import numpy as np
import pytest
from support.records import synthetic

from noisytune.report import render_html, render_markdown
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.ranks import rank_table


def test_ranks_are_those_of_the_means() -> None:
    study, records = synthetic(tasks=6, arms=3, seeds=2, examples=60, steps=3)
    found = rank_table(gather(study, records))
    assert found is not None
    places = []
    for task in study.tasks:
        means = [
            np.mean([r.scores["accuracy"] for r in records if (r.task, r.arm) == (task["name"], arm)])
            for arm in study.arms
        ]
        places.append(
            [sum(np.round(x - m, 9) > 0 for x in means) + (sum(np.isclose(x, m) for x in means) + 1) / 2 for m in means]
        )
    assert [rank.mean for rank in found.ranks] == pytest.approx(np.mean(places, axis=0))
    assert sum(rank.mean for rank in found.ranks) == pytest.approx(6.0)
    for rank in found.ranks:
        assert 1.0 <= rank.interval.low <= rank.interval.high <= 3.0
    assert "of 3 arms, by mean scores in 6 tasks" in render_markdown(study, records)
    assert "of 3 arms, by mean scores in 6 tasks" in render_html(study, records)


def test_told_by_its_errors_a_study_has_the_same_ranks() -> None:
    study, records = synthetic(tasks=6, arms=3, seeds=3, examples=60, steps=3)
    tasks = [task | {"kind": "language", "metric": "nll", "metric_label": "nats"} for task in study.tasks]
    fallen = [replace(one, scores={"nll": 1 - one.scores["accuracy"]}) for one in records]
    assert rank_table(gather(replace(study, tasks=tasks), fallen)) == rank_table(gather(study, records))


def test_few_tasks_or_unfinished_ones_have_no_ranks() -> None:
    study, records = synthetic(tasks=4, seeds=2, examples=20, steps=3)
    assert rank_table(gather(study, records)) is None
    study, records = synthetic(tasks=6, seeds=1, examples=20, steps=3)
    assert rank_table(gather(study, records)) is not None
    assert rank_table(gather(study, records[1:])) is None
