"""Which figures stand on the page, under which titles and captions?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from noisytune._paper import numbers as paper
from noisytune.report.evidence.combinations import combinations, pooled_combinations
from noisytune.report.evidence.norms import movements
from noisytune.report.evidence.pairs import Comparison, Evidence
from noisytune.report.evidence.summary import SummaryRow, comparisons_at_once, differences, primary_rows, task_rows
from noisytune.report.page import figures, paper_figures, seed_figures
from noisytune.report.statistics.intervals import running

CARDS_UP_TO = {True: 12, False: 4}
"""Figures of one sort on a page, by `Evidence.few`; further tasks and comparisons are in the tables only."""
ROWS_UP_TO = 24
"""Lines of the figure that shows all comparisons; where there are more, it shows the primary ones."""


@dataclass(frozen=True)
class Card:
    """One figure with its title and a caption."""

    title: str
    caption: str
    svg: str


def _forest_card(evidence: Evidence, rows: list[SummaryRow]) -> Card:
    each = [differences(evidence, row) for row in rows]
    small = "Small dots: the single differences."
    if not evidence.few:
        small = "Grey lines below: where the middle half and the middle 90 % of the differences lie."
    caption = (
        "Large dot: mean. Thick line: anytime-valid 95 % interval, also in brackets. Thin line: fixed-n interval. "
        f"{small} Grey band: the margin."
    )
    if not all(math.isfinite(row.low) for row in rows):
        caption += " An arrow: the interval runs on."
    return Card(
        "Differences from the baseline", caption, figures.forest(rows, each, evidence.study.margin, singly=evidence.few)
    )


def _running_card(evidence: Evidence, row: SummaryRow, place: int, several: bool) -> Card:
    band = running(differences(evidence, row), comparisons_at_once(evidence, over_tasks=row.pooled))
    unit = "seed" if row.pooled else "pair"
    caption = f"Mean difference so far with its anytime-valid band, which may be looked at after every {unit}."
    if not math.isfinite(band.low[0]):
        caption += f" Pale: too few {unit}s, or too many equal differences, to bound it."
    colour = figures.arm_colour(evidence.study.arms, row.arm)
    svg = figures.running_band(band, evidence.study.margin, colour, key=f"running-{place}", unit=unit)
    return Card(f"As {unit}s came in" + (f": {row.arm}" if several else ""), caption, svg)


def _slope_card(evidence: Evidence, comparison: Comparison, place: int) -> Card:
    study = evidence.study
    name = [comparison.task["name"]] * (len(study.tasks) > 1) + [comparison.arm] * (len(study.arms) > 2)
    caption = "Each line is a pair. Green: the arm did better; red: worse. Heavy: the mean."
    if not evidence.few:
        caption = "Bars: how many seeds have which score; left the baseline's, right the arm's. Line: the means."
    elif any(r.status != "ok" for p in comparison.pairs for r in (p.baseline, p.arm)):
        caption += " A cross: the run collapsed, diverged or stayed untrained."
    title = "Seed by seed" + (f": {', '.join(name)}" if name else "")
    return Card(title, caption, seed_figures.slope(comparison, singly=evidence.few, key=f"slope-{place}"))


COMBINED = (
    "Mean score of each method without NoisyTune (hollow) and with it (filled), over the seeds of which both are done. "
    "Line, and brackets: the fixed-n 95 % interval of the gain, of each line alone. " + paper.COMBINED
)
STRENGTHS = (
    "Lines as in the differences from the baseline. Picking the highest point afterwards makes it look better than it "
    "is. " + paper.STRENGTHS
)
NOISE_TYPES = (
    "Mean scores; the line is that of the baseline, without noise. Whiskers, and brackets: the fixed-n 95 % interval "
    "of the difference from it, of each type alone. " + paper.NOISE_TYPES
)
SHARES = (
    "Mean scores by training examples; every share contains the smaller ones. Whiskers: the fixed-n 95 % interval of "
    "the arm's difference from the baseline. " + paper.SHARES
)
NORMS = (
    "Numbers, in the order of the legend: L1 norm of the change from the first to the last step of training, in "
    "percent of the L1 norm at the first, noise included; means of {} runs. Dots: how much farther than in the "
    "baseline, with the fixed-n 95 % interval. " + paper.NORMS
)


def paper_cards(evidence: Evidence, *, model: bool = False, key: str = "") -> Iterator[Card]:
    """The figures that the paper has too, where the study has the arms for them.

    Args:
        evidence: of one study.
        model: for a page of several models: the model in the titles, and the tasks pooled only.
        key: keeps figures of several studies on one page apart.
    """
    study, several = evidence.study, len(evidence.study.tasks) > 1
    primary = [row for row in primary_rows(evidence) if row.n]
    rows = primary if model else primary + [row for row in task_rows(evidence) if row.n and several]
    combined = pooled_combinations(evidence) if several else combinations(evidence)
    combined += combinations(evidence) if several and not model else []

    def title(text: str, about: str = "") -> str:
        words = [study.model["name"]] * model + [about] * (bool(about) and several)
        return text + (f": {', '.join(words)}" if words else "")

    for i, task in enumerate([*dict.fromkeys(row.task for row in rows)][: CARDS_UP_TO[evidence.few]]):
        mine = [row for row in rows if row.task == task]
        lambdas = {c.noise_lambda for c in evidence.comparisons} - {None}
        types = paper_figures.noise_types(evidence, mine)
        if types:
            svg = paper_figures.noise_type_scores(types, _metric(evidence, task), key=f"{key}types-{i}")
            yield Card(title("Which noise", task), NOISE_TYPES, svg)
        if len(lambdas) > 1 and len(mine) > 1:
            svg = figures.lambda_curve(evidence, mine, key=f"{key}lambda-{i}")
            yield Card(title("How much noise", task), STRENGTHS, svg)
        both = [c for c in combined if c.task["name"] == task]
        if both:
            svg = figures.with_and_without(both, key=f"{key}combined-{i}")
            yield Card(title("Alone and with NoisyTune", task), COMBINED, svg)
    for i, whole in enumerate(dict.fromkeys(task.get("part_of") for task in study.tasks)):
        mine = [row for row in task_rows(evidence) if row.n and _part_of(evidence, row.task) == whole]
        if whole and mine:
            svg = paper_figures.by_share(evidence, mine, key=f"{key}share-{i}")
            yield Card(title("How much training data", whole), SHARES, svg)
    moved = movements(evidence)
    if moved:
        svg = paper_figures.norm_changes(moved, study.arms, key=f"{key}norms")
        yield Card(title("How far training moved the weights"), NORMS.format(moved[0].n), svg)


def _metric(evidence: Evidence, task: str) -> str:
    labels = {one["metric_label"] for one in evidence.study.tasks if one["name"] == task} or {
        one["metric_label"] for one in evidence.study.tasks
    }
    return labels.pop() if len(labels) == 1 else "mean score"


def _part_of(evidence: Evidence, task: str) -> str:
    return next(str(one.get("part_of", "")) for one in evidence.study.tasks if one["name"] == task)


def undrawn(evidence: Evidence) -> str:
    """Which figures are left out, in a sentence; empty where none is."""
    compared = sum(bool(c.pairs) for c in evidence.comparisons)
    most = max(compared, len(evidence.study.tasks))
    drawn = CARDS_UP_TO[evidence.few]
    if most <= drawn:
        return ""
    return f"Of each sort the first {drawn} figures are drawn; the tables below have all {compared} comparisons."


def all_cards(evidence: Evidence, rows: list[SummaryRow], primary: list[SummaryRow]) -> list[Card]:
    """Every figure, in the page's order."""
    study, cards = evidence.study, []
    known, told = [row for row in rows if row.n], [row for row in primary if row.n]
    if known:
        shown = known if len(known) <= ROWS_UP_TO else told
        cards.append(_forest_card(evidence, shown[:ROWS_UP_TO]))
    cards += paper_cards(evidence)
    cards += [_running_card(evidence, row, i, len(told) > 1) for i, row in enumerate(told[: CARDS_UP_TO[evidence.few]])]
    compared = [c for c in evidence.comparisons if c.pairs]
    cards += [_slope_card(evidence, c, i) for i, c in enumerate(compared[: CARDS_UP_TO[evidence.few]])]
    for i, task in enumerate(study.tasks[: CARDS_UP_TO[evidence.few]]):
        trials = [r for r in evidence.trials.values() if r.task == task["name"] and r.loss_curve]
        if trials:
            name = f": {task['name']}" if len(study.tasks) > 1 else ""
            caption = "Smoothed. Heavy: mean over seeds. Fine: each seed."
            if not evidence.few:
                caption = "Smoothed. Heavy: mean over seeds. Bands: where the middle 90 % of them lie."
            svg = seed_figures.loss_curves(trials, study.arms, singly=evidence.few, key=f"loss-{i}")
            cards.append(Card("Training loss" + name, caption, svg))
    return cards
