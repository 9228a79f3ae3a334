"""The scores in the layout of the paper's tables: a row for each model and arm, a column for each task and average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from noisytune._metrics import METRICS, direction
from noisytune._paper import numbers as paper
from noisytune.report.evidence.pairs import Evidence
from noisytune.report.evidence.summary import SummaryRow, grouped_rows, task_rows
from noisytune.report.page.wording import number

HARD = "glue/wnli"
"""Its dev set is adversarial and small: the average is shown without it too."""


@dataclass(frozen=True)
class Score:
    """A cell: the mean over seeds, points."""

    mean: float
    """NaN where no trial is done, or for an average that lacks a task."""
    parts: tuple[float, ...] = ()
    """Of a metric that is the mean of others: those, points."""
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
    paper: tuple[str, ...] = ()
    """What the paper prints; empty where it prints nothing."""


@dataclass(frozen=True)
class Average:
    """A column beside the tasks': the mean over groups of the mean over each group's tasks."""

    name: str
    groups: tuple[tuple[str, ...], ...]
    is_papers: bool
    """Whether it averages as the paper does that prints the table."""
    about: str = ""
    """For the caption."""

    @property
    def tasks(self) -> set[str]:
        """Those that it is over."""
        return {task for group in self.groups for task in group}


@dataclass(frozen=True)
class ScoreTable:
    """All models of a study."""

    columns: tuple[tuple[str, str], ...]
    """Name and metric."""
    rows: tuple[Row, ...]
    papers: tuple[str, ...] = ()
    """Of the paper's rows: what is to be known of them."""
    averages: tuple[str, ...] = ()
    """What is to be known of averages that are not the plain one."""
    parts: tuple[str, ...] = ()
    """The metrics of which others are the mean: what stands below their scores."""

    @property
    def with_paper(self) -> bool:
        """Whether some row is the paper's."""
        return bool(self.papers)

    @property
    def failed(self) -> bool:
        """Whether a run collapsed, diverged or stayed untrained."""
        return any(score.failed for row in self.rows for score in row.scores)


def score_table(models: Sequence[Evidence]) -> ScoreTable:
    """The table of one or several models, each model's arms below each other.

    Args:
        models: studies of the same tasks, one a model. A model that lacks a task of the others lacks an average too.
    """
    entries = {task["name"]: task for evidence in models for task in evidence.study.tasks}
    whole = not any(task.get("part_of") for task in entries.values())
    averages = _averages(list(entries.values())) if len(entries) > 1 and whole else []
    columns = (
        *zip(_short(list(entries)), map(_about, entries.values()), strict=True),
        *((average.name, f"mean of {len(average.groups)}") for average in averages),
    )
    each = [_paper_rows(evidence, list(entries), averages) for evidence in models]
    rows = [
        row
        for evidence, (_, of_paper) in zip(models, each, strict=True)
        for row in (*_rows(evidence, list(entries), averages), *of_paper)
    ]
    papers = dict.fromkeys(about for found, _ in each for about in found)
    parts = dict.fromkeys(label for task in entries.values() for label in _part_labels(task))
    told = tuple(average.about for average in averages if average.about)
    return ScoreTable(columns, tuple(rows), tuple(papers), told, tuple(parts))


def beside_paper(table: ScoreTable) -> list[tuple[str, ...]]:
    """The scores beside what the paper prints, as text: headings, then a line for each task and average.

    Empty where the paper prints nothing of these models and arms.
    """
    shown = [row for row in table.rows if row.scores or row.paper] if table.with_paper else []
    lines = [
        (name, *(row.paper[i] if row.paper else _cell(row.scores[i]) for row in shown))
        for i, (name, _) in enumerate(table.columns)
    ]
    return [("", *(row.name for row in shown)), *lines] if shown else []


def _cell(score: Score) -> str:
    parts = "/".join(map(number, score.parts))
    return f"{number(score.mean)} ({parts})" if parts else number(score.mean)


def _averages(tasks: list[dict[str, Any]]) -> list[Average]:
    """The mean of the tasks; where they are of several categories, that of the categories' means too; without what is
    known to be hard."""
    names = tuple(task["name"] for task in tasks)
    categories: dict[str, list[str]] = {}
    for task in tasks:
        categories.setdefault((task.get("facts") or {}).get("category", ""), []).append(task["name"])
    if "" not in categories and len(categories) > 1:
        listed = ", ".join(categories)
        of_categories = tuple(map(tuple, categories.values()))
        return [
            Average(
                "Avg. of tasks",
                tuple((name,) for name in names),
                False,
                "Avg. of tasks: the plain mean, which is XTREME's official one.",
            ),
            Average(
                "Avg. of categories",
                of_categories,
                True,
                f"Avg. of categories: the mean of the means of {listed}, as the paper averages.",
            ),
        ]
    averages = [Average("Avg.", tuple((name,) for name in names), True)]
    if HARD in names and len(names) > 2:
        averages.append(Average("Avg. without WNLI", tuple((name,) for name in names if name != HARD), False))
    return averages


def _about(task: dict[str, Any]) -> str:
    """The metric and, of a task in several languages, in how many it was scored."""
    facts = task.get("facts") or {}
    scored, known = len(facts.get("languages", ())), facts.get("languages_of_benchmark", 0)
    of = f" of {known}" if known > scored else ""
    return f"{task['metric_label']}" + (f", {scored}{of} languages" if scored > 1 or of else "")


def _metric_parts(task: dict[str, Any]) -> tuple[str, ...]:
    metric = METRICS.get(task["kind"], {}).get(task["metric"])
    return metric.parts if metric else ()


def _part_labels(task: dict[str, Any]) -> tuple[str, ...]:
    return tuple(METRICS[task["kind"]][key].label for key in _metric_parts(task))


def _short(tasks: list[str]) -> list[str]:
    """Names for narrow columns: a benchmark that all tasks are of goes without saying."""
    benchmarks = {name.rpartition("/")[0] for name in tasks}
    return [name.rpartition("/")[2] for name in tasks] if len(tasks) > 1 and len(benchmarks) == 1 else tasks


def _rows(evidence: Evidence, tasks: list[str], averages: list[Average]) -> list[Row]:
    study = evidence.study
    means = {arm: _scores(evidence, arm, tasks, averages) for arm in study.arms}
    better = {task["name"]: direction(task["kind"], task["metric"]) for task in study.tasks}
    signs = [better.get(name, 1) for name in tasks]
    signs += [signs[0] if len(set(signs)) == 1 else 0] * len(averages)  # 0: no best among means of both directions
    columns = [[score.mean for score in column] for column in zip(*means.values(), strict=True)]
    columns = [[sign * mean for mean in column] for sign, column in zip(signs, columns, strict=True)]
    top = [max(column, key=lambda mean: -math.inf if math.isnan(mean) else mean) for column in columns]
    alone = [column.count(best) == 1 for column, best in zip(columns, top, strict=True)]
    pooled = [_pooled(evidence, average) for average in averages]
    rows = []
    for arm, scores in means.items():
        baseline = arm == study.arms[0]
        marked = tuple(
            replace(score, best=one and sign * score.mean == best)
            for score, best, one, sign in zip(scores, top, alone, signs, strict=True)
        )
        rows.append(Row(study.model["name"] if baseline else f"+ {arm}", baseline, marked))
        if not baseline:
            rows.append(Row("difference", gains=_gains(evidence, arm, tasks, pooled)))
    return rows


def _scores(evidence: Evidence, arm: str, tasks: list[str], averages: list[Average]) -> list[Score]:
    cells = {}
    entries = {task["name"]: task for task in evidence.study.tasks}
    for task in tasks:
        mine = evidence.runs.get((task, arm), [])
        failed = sum(record.status != "ok" for record in mine)
        mean = float(np.mean([evidence.score(record) for record in mine])) if mine else math.nan
        keys = _metric_parts(entries[task]) if mine else ()
        parts = tuple(100.0 * float(np.mean([record.scores.get(key, 0.0) for record in mine])) for key in keys)
        cells[task] = Score(mean, parts, failed=failed)
    over = [
        Score(float(np.mean([np.mean([cells[task].mean for task in group]) for group in average.groups])))
        for average in averages
    ]
    return [*cells.values(), *over]


def _gains(
    evidence: Evidence, arm: str, tasks: list[str], pooled: list[list[SummaryRow]]
) -> tuple[SummaryRow | None, ...]:
    """``pooled``: all arms, of each average."""
    each = {row.task: row for row in task_rows(evidence) if row.arm == arm and row.n}
    over = [next((row for row in rows if row.arm == arm and row.n), None) for rows in pooled]
    return (*(each.get(task) for task in tasks), *over)


def _pooled(evidence: Evidence, average: Average) -> list[SummaryRow]:
    """Every arm's comparison of an average; none where the study lacks a task of it."""
    if not {task["name"] for task in evidence.study.tasks} >= average.tasks:
        return []
    return grouped_rows(_only(evidence, average.tasks), average.groups)


def _only(evidence: Evidence, tasks: set[str]) -> Evidence:
    """The same study as if it had only these tasks."""
    if len(tasks) == len(evidence.study.tasks):
        return evidence
    study = replace(evidence.study, tasks=[task for task in evidence.study.tasks if task["name"] in tasks])
    trials = {key: record for key, record in evidence.trials.items() if record.task in tasks}
    return Evidence(study, trials, tuple(c for c in evidence.comparisons if c.task["name"] in tasks))


def _paper_rows(evidence: Evidence, tasks: list[str], averages: list[Average]) -> tuple[list[str], list[Row]]:
    """What is to be known of the paper's rows, and the rows: those that fit the model, the arms and the setting."""
    settings = {(task.get("facts") or {}).get("setting", "") for task in evidence.study.tasks}
    about, rows = [], []
    for arm in evidence.study.arms if len(settings) == 1 else ():
        found = paper.printed(evidence.study.model["name"], arm, *settings)
        if found and set(tasks) & found.scores.keys():
            cells = ["/".join(f"{score:.1f}" for score in found.scores.get(task, ())) for task in tasks]
            is_whole = [average.is_papers and average.tasks == found.scores.keys() for average in averages]
            about.append(found.about)
            rows.append(
                Row(f"the paper: {found.name}", paper=(*cells, *(f"{found.average:.1f}" * whole for whole in is_whole)))
            )
    return about, rows
