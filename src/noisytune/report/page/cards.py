"""Which figures stand on the page, under which titles and captions, with which numbers to download?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from noisytune._paper import numbers as paper
from noisytune.report.evidence.combinations import combinations, pooled_combinations
from noisytune.report.evidence.norms import movements
from noisytune.report.evidence.pairs import Comparison, Evidence
from noisytune.report.evidence.summary import SummaryRow, comparisons_at_once, differences, primary_rows, task_rows
from noisytune.report.page import downloads, figures, paper_figures, seed_figures
from noisytune.report.page.downloads import Download
from noisytune.report.page.wording import headline
from noisytune.report.statistics.intervals import Running, running

PANELS_UP_TO = {True: 12, False: 4}
"""Panels of one figure, by `Evidence.few`; further tasks and comparisons are in the tables only."""
ROWS_UP_TO = 24
"""Lines of the figure that shows all comparisons; where there are more, it shows the primary ones."""
PANEL_ROWS = 5
"""Lines of one panel of it."""
FIRST_ROWS = 3
"""Lines of the figure that the page begins with: so many fit beside the verdict, and under it on a phone."""


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure."""

    label: str
    """What it is of, where the figure has several; else empty."""
    svg: str


@dataclass(frozen=True)
class Card:
    """A figure with its title, a caption and its numbers."""

    title: str
    caption: str
    panels: tuple[Panel, ...]
    data: Download


def _labels(told: Sequence[tuple[str, str]]) -> list[str]:
    """Task and arm of each panel, as far as they differ."""
    tasks, arms = ({one[i] for one in told} for i in (0, 1))
    return [", ".join([task] * (len(tasks) > 1) + [arm] * (len(arms) > 1)) for task, arm in told]


def _panels(labels: Sequence[str], drawn: Sequence[str]) -> tuple[Panel, ...]:
    return tuple(Panel(label, svg) for label, svg in zip(labels, drawn, strict=True))


def first_rows(rows: list[SummaryRow]) -> list[SummaryRow]:
    """The primary comparisons that the page begins with, the one of the verdict among them."""
    known, told = [row for row in rows if row.n], headline(rows)
    return [row for row in known if row in known[:FIRST_ROWS] or row is told][-FIRST_ROWS:]


def first_card(evidence: Evidence, primary: list[SummaryRow]) -> Card:
    """The figure that the page begins with; it says where it does not have all of them."""
    rows = first_rows(primary)
    card = forest_card(evidence, rows, key="first")
    known = sum(row.n > 0 for row in primary)
    left = f" {len(rows)} of {known} comparisons; every one is below." if len(rows) < known else ""
    return replace(card, caption=card.caption + left)


def forest_card(evidence: Evidence, rows: list[SummaryRow], *, key: str) -> Card:
    """The differences from the baseline.

    Args:
        evidence: of one study.
        rows: one line each, all with a pair.
        key: see `noisytune.report.page.svg.inline`.
    """
    each = [differences(evidence, row) for row in rows]
    small = "small: each pair" if evidence.few else "grey: the middle half and 90 % of pairs"
    caption = f"Dot: mean; thick: anytime-valid 95 %, in brackets; thin: fixed-n; {small}; band: the margin."
    if not all(math.isfinite(row.low) for row in rows):
        caption += " An arrow: the interval runs on."
    whole = figures.Lines(rows, each, evidence.study.margin, singly=evidence.few)
    size = math.ceil(len(rows) / math.ceil(len(rows) / PANEL_ROWS))
    drawn = [figures.forest(whole, at, at + size, key=f"{key}-{at}") for at in range(0, len(rows), size)]
    panels = _panels([""] * len(drawn), drawn)
    return Card("Differences from the baseline", caption, panels, downloads.of_comparisons("differences", rows))


def _running_card(evidence: Evidence, rows: list[SummaryRow]) -> Card:
    study = evidence.study
    unit = "seed" if rows[0].pooled else "pair"
    bands: list[tuple[SummaryRow, Running]] = []
    drawn = []
    for i, row in enumerate(rows):
        band = running(differences(evidence, row), comparisons_at_once(evidence, over_tasks=row.pooled))
        colour = figures.arm_colour(study.arms, row.arm)
        drawn.append(figures.running_band(band, study.margin, colour, key=f"running-{i}", unit=unit))
        bands.append((row, band))
    caption = "Mean difference so far and its anytime-valid band."
    if not all(math.isfinite(band.low[0]) for _, band in bands):
        caption += f" Pale: too few {unit}s, or too many equal differences, to bound it."
    labels = _labels([(row.task, row.arm) for row in rows])
    return Card(f"As {unit}s came in", caption, _panels(labels, drawn), downloads.of_bands(bands))


def _slope_card(evidence: Evidence, compared: list[Comparison]) -> Card:
    caption = "Each line is a pair. Green: the arm did better; red: worse. Heavy: the mean."
    if not evidence.few:
        caption = "Bars: how many seeds have which score; left the baseline's, right the arm's. Line: the means."
    elif any(r.status != "ok" for c in compared for p in c.pairs for r in (p.baseline, p.arm)):
        caption += " A cross: the run collapsed, diverged or stayed untrained."
    drawn = [seed_figures.slope(c, singly=evidence.few, key=f"slope-{i}") for i, c in enumerate(compared)]
    labels = _labels([(c.task["name"], c.arm) for c in compared])
    return Card("Seed by seed", caption, _panels(labels, drawn), downloads.of_pairs(compared))


def _loss_card(evidence: Evidence) -> Iterator[Card]:
    drawn, labels, all_trials = [], [], []
    for i, task in enumerate(evidence.study.tasks[: PANELS_UP_TO[evidence.few]]):
        trials = [r for r in evidence.trials.values() if r.task == task["name"] and r.loss_curve]
        if trials:
            svg = seed_figures.loss_curves(trials, evidence.study.arms, singly=evidence.few, key=f"loss-{i}")
            drawn.append(svg)
            labels.append(task["name"])
            all_trials += trials
    if drawn:
        fine = "Fine: each seed." if evidence.few else "Bands: where the middle 90 % of them lie."
        panels = _panels(labels if len(evidence.study.tasks) > 1 else [""], drawn)
        data = downloads.of_losses(all_trials, singly=evidence.few)
        yield Card("Training loss", f"Smoothed. Heavy: mean over seeds. {fine}", panels, data)


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
    "Numbers: L1 norm of the change from the first to the last step of training, in percent of the L1 norm at the "
    "first, noise included; means of {} runs. Dots: how much farther than in the baseline, with the fixed-n 95 % "
    "interval. " + paper.NORMS
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
    combined = pooled_combinations(evidence) if several else []
    combined = [*combined, *([] if several and model else combinations(evidence))]
    tasks = [*dict.fromkeys(row.task for row in rows)][: PANELS_UP_TO[evidence.few]]
    of_task = {task: [row for row in rows if row.task == task] for task in tasks}

    def headed(title: str) -> str:
        return title + (f": {study.model['name']}" if model else "")

    def card(title: str, caption: str, name: str, found: list[tuple[str, str, list[SummaryRow]]]) -> Iterator[Card]:
        if found:
            panels = tuple(Panel(label if several else "", svg) for label, svg, _ in found)
            data = downloads.of_comparisons(f"{key}{name}", [row for _, _, mine in found for row in mine])
            yield Card(headed(title), caption, panels, data)

    types, strengths = [], []
    for i, (task, mine) in enumerate(of_task.items()):
        if named := paper_figures.noise_types(evidence, mine):
            svg = paper_figures.noise_type_scores(named, _metric(evidence, task), key=f"{key}types-{i}")
            types.append((task, svg, [row for _, row in named]))
        if len({c.noise_lambda for c in evidence.comparisons} - {None}) > 1 and len(mine) > 1:
            strengths.append((task, figures.lambda_curve(evidence, mine, key=f"{key}lambda-{i}"), mine))
    yield from card("Which noise", NOISE_TYPES, "types", types)
    yield from card("How much noise", STRENGTHS, "strengths", strengths)
    both = [
        (i, task, same) for i, task in enumerate(tasks) if (same := [c for c in combined if c.task["name"] == task])
    ]
    if both:
        drawn = [figures.with_and_without(same, key=f"{key}combined-{i}") for i, _, same in both]
        data = downloads.of_combinations(f"{key}combined", [c for _, _, same in both for c in same])
        panels = _panels([task if several else "" for _, task, _ in both], drawn)
        yield Card(headed("Alone and with NoisyTune"), COMBINED, panels, data)
    shares = []
    for i, whole in enumerate(dict.fromkeys(task.get("part_of") for task in study.tasks)):
        mine = [row for row in task_rows(evidence) if row.n and _part_of(evidence, row.task) == whole]
        if whole and mine:
            shares.append((str(whole), paper_figures.by_share(evidence, mine, key=f"{key}share-{i}"), mine))
    yield from card("How much training data", SHARES, "shares", shares)
    if moved := movements(evidence):
        svg = paper_figures.norm_changes(moved, study.arms, key=f"{key}norms")
        data = downloads.of_movements(f"{key}movement", moved)
        yield Card(headed("How far training moved the weights"), NORMS.format(moved[0].n), (Panel("", svg),), data)


def _metric(evidence: Evidence, task: str) -> str:
    labels = {one["metric_label"] for one in evidence.study.tasks if one["name"] == task} or {
        one["metric_label"] for one in evidence.study.tasks
    }
    return labels.pop() if len(labels) == 1 else "mean score"


def _part_of(evidence: Evidence, task: str) -> str:
    return next(str(one.get("part_of", "")) for one in evidence.study.tasks if one["name"] == task)


def undrawn(evidence: Evidence) -> str:
    """Which panels are left out, in a sentence; empty where none is."""
    compared = sum(bool(c.pairs) for c in evidence.comparisons)
    most = max(compared, len(evidence.study.tasks))
    drawn = PANELS_UP_TO[evidence.few]
    if most <= drawn:
        return ""
    return f"Each figure has its first {drawn} panels; the tables below have all {compared} comparisons."


def all_cards(evidence: Evidence, rows: list[SummaryRow], primary: list[SummaryRow]) -> list[Card]:
    """Every figure but the page's first, in order.

    Args:
        evidence: of one study.
        rows: all comparisons.
        primary: those that the study was run for.
    """
    cards, most = list[Card](), PANELS_UP_TO[evidence.few]
    known, told = [row for row in rows if row.n], [row for row in primary if row.n]
    shown = known if len(known) <= ROWS_UP_TO else told
    if len(known) > len(first_rows(primary)):
        cards.append(forest_card(evidence, shown[:ROWS_UP_TO], key="forest"))
    cards += paper_cards(evidence)
    if told:
        cards.append(_running_card(evidence, told[:most]))
    if compared := [c for c in evidence.comparisons if c.pairs][:most]:
        cards.append(_slope_card(evidence, compared))
    cards += _loss_card(evidence)
    # What fills a line of the page comes last, so that the others stand beside each other.
    return cards[:1] + sorted(cards[1:], key=lambda card: len(card.panels) > 1)


def is_lone(cards: Sequence[Card]) -> bool:
    """Whether just one figure does not fill a line of the page: nothing would stand beside it."""
    return sum(len(card.panels) == 1 for card in cards) == 1
