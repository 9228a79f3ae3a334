"""The scores in the layout of the paper's Table 2: a row for each model and arm, a column for each task and average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from noisytune._paper import numbers as paper
from noisytune.report.evidence.pairs import Evidence
from noisytune.report.evidence.summary import SummaryRow, pooled_rows, task_rows

HARD = "glue/wnli"
"""Its dev set is adversarial and small: the average is shown without it too."""


@dataclass(frozen=True)
class Score:
    """A cell: the mean over seeds, points."""

    mean: float
    """NaN where no trial is done, or for an average that lacks a task."""
    best: bool = False
    """Above every other arm of the model."""
    failed: int = 0
    """Runs among them that collapsed, diverged or stayed untrained."""


@dataclass(frozen=True)
class Row:
    """A line of the table; one of the three kinds of cells, one a column."""

    name: str
    baseline: bool = False
    """Whether a model's arms begin here."""
    scores: tuple[Score, ...] = ()
    gains: tuple[SummaryRow | None, ...] = ()
    """The comparisons with the baseline; None where there is none."""
    paper: tuple[float | None, ...] = ()
    """What the paper prints."""


@dataclass(frozen=True)
class ScoreTable:
    """All models of a study."""

    columns: tuple[tuple[str, str], ...]
    """Name and metric."""
    rows: tuple[Row, ...]

    @property
    def with_paper(self) -> bool:
        """Whether some row is the paper's."""
        return any(row.paper for row in self.rows)

    @property
    def failed(self) -> bool:
        """Whether a run collapsed, diverged or stayed untrained."""
        return any(score.failed for row in self.rows for score in row.scores)


def score_table(models: Sequence[Evidence]) -> ScoreTable:
    """The table of one or several models, each model's arms below each other.

    Args:
        models: studies of the same tasks, one a model. A model that lacks a task of the others lacks an average too.
    """
    tasks = {task["name"]: task["metric_label"] for evidence in models for task in evidence.study.tasks}
    whole = not any(task.get("part_of") for evidence in models for task in evidence.study.tasks)
    averages = [("Avg.", list(tasks))] if len(tasks) > 1 and whole else []
    if averages and HARD in tasks and len(tasks) > 2:
        averages.append(("Avg. without WNLI", [name for name in tasks if name != HARD]))
    columns = (
        *zip(_short(list(tasks)), tasks.values(), strict=True),
        *((name, f"mean of {len(over)}") for name, over in averages),
    )
    rows = [row for evidence in models for row in _rows(evidence, list(tasks), [over for _, over in averages])]
    return ScoreTable(columns, tuple(rows))


def _short(tasks: list[str]) -> list[str]:
    """Names for narrow columns: a benchmark that all tasks are of goes without saying."""
    benchmarks = {name.rpartition("/")[0] for name in tasks}
    return [name.rpartition("/")[2] for name in tasks] if len(tasks) > 1 and len(benchmarks) == 1 else tasks


def _rows(evidence: Evidence, tasks: list[str], averages: list[list[str]]) -> list[Row]:
    study = evidence.study
    means = {arm: _scores(evidence, arm, tasks, averages) for arm in study.arms}
    columns = [[score.mean for score in column] for column in zip(*means.values(), strict=True)]
    top = [max(column, key=lambda mean: -math.inf if math.isnan(mean) else mean) for column in columns]
    alone = [column.count(best) == 1 for column, best in zip(columns, top, strict=True)]
    pooled = [pooled_rows(_only(evidence, over)) if _has(evidence, over) else [] for over in averages]
    rows = []
    for arm, scores in means.items():
        baseline = arm == study.arms[0]
        marked = tuple(
            replace(score, best=one and score.mean == best) for score, best, one in zip(scores, top, alone, strict=True)
        )
        rows.append(Row(study.model["name"] if baseline else f"+ {arm}", baseline, marked))
        if not baseline:
            rows.append(Row("difference", gains=_gains(evidence, arm, tasks, pooled)))
    return rows + _paper_rows(evidence, tasks, averages)


def _scores(evidence: Evidence, arm: str, tasks: list[str], averages: list[list[str]]) -> list[Score]:
    cells = {}
    for task in tasks:
        mine = evidence.runs.get((task, arm), [])
        failed = sum(record.status != "ok" for record in mine)
        mean = float(np.mean([evidence.score(record) for record in mine])) if mine else math.nan
        cells[task] = Score(mean, failed=failed)
    over = [Score(float(np.mean([cells[task].mean for task in each]))) for each in averages]
    return [*cells.values(), *over]


def _gains(
    evidence: Evidence, arm: str, tasks: list[str], pooled: list[list[SummaryRow]]
) -> tuple[SummaryRow | None, ...]:
    """``pooled``: all arms, of each average."""
    each = {row.task: row for row in task_rows(evidence) if row.arm == arm and row.n}
    over = [next((row for row in rows if row.arm == arm and row.n), None) for rows in pooled]
    return (*(each.get(task) for task in tasks), *over)


def _has(evidence: Evidence, tasks: list[str]) -> bool:
    return {task["name"] for task in evidence.study.tasks} >= set(tasks)


def _only(evidence: Evidence, tasks: list[str]) -> Evidence:
    """The same study as if it had only these tasks."""
    if len(tasks) == len(evidence.study.tasks):
        return evidence
    study = replace(evidence.study, tasks=[task for task in evidence.study.tasks if task["name"] in tasks])
    trials = {key: record for key, record in evidence.trials.items() if record.task in tasks}
    return Evidence(study, trials, tuple(c for c in evidence.comparisons if c.task["name"] in tasks))


def _paper_rows(evidence: Evidence, tasks: list[str], averages: list[list[str]]) -> list[Row]:
    rows = []
    for arm in evidence.study.arms:
        found = paper.table2(evidence.study.model["name"], arm)
        if found and set(tasks) & set(found[1]):
            name, scores, average = found
            over = [average if set(each) == set(scores) else None for each in averages]
            rows.append(Row(f"the paper: {name}", paper=(*(scores.get(task) for task in tasks), *over)))
    return rows
