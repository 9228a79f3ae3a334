"""Average ranks against a loop, and where there are none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
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


def test_the_interval_of_a_rank_is_over_tasks() -> None:
    """One seed, and half of six tasks won: redrawn tasks won are binomial."""
    study, records = synthetic(tasks=6, arms=2, seeds=1, examples=20, steps=3)
    won = {task["name"] for task in study.tasks[:3]}
    scores = [0.5 + 0.1 * ((one.arm != "plain") == (one.task in won)) for one in records]
    found = rank_table(
        gather(study, [replace(r, scores={"accuracy": s}) for r, s in zip(records, scores, strict=True)])
    )
    low, high = stats.binom.ppf([0.025, 0.975], 6, 0.5) / 6
    for rank in found.ranks:
        assert rank.mean == 1.5
        assert (rank.interval.low, rank.interval.high) == pytest.approx((2 - high, 2 - low))
