"""The numbers behind a figure, as a file of CSV that the page itself holds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np

from noisytune._text import cell
from noisytune.records import TrialRecord
from noisytune.report.evidence.combinations import Combination
from noisytune.report.evidence.norms import Movement
from noisytune.report.evidence.pairs import Comparison
from noisytune.report.evidence.search import SearchRow
from noisytune.report.evidence.summary import SummaryRow
from noisytune.report.page.seed_figures import smooth
from noisytune.report.statistics.intervals import Running

LOSSES = 3000
"""Lines of a file of loss curves, about: many curves have fewer points each."""

Cell = str | float


@dataclass(frozen=True)
class Download:
    """A file that the page holds."""

    name: str
    url: str


def download(name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Download:
    """Rows as CSV in a ``data:`` address; numbers have six digits, and what is not finite is empty.

    Args:
        name: of the file, without its ending.
        columns: their names.
        rows: cells in the same order.

    >>> download("d", ["arm", "x"], [["a, b", 0.5], ["c", float("inf")]]).url
    'data:text/csv;charset=utf-8,arm,x%0A%22a,%20b%22,0.5%0Ac,%0A'
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, row) for row in rows)
    return Download(f"{name}.csv", f"data:text/csv;charset=utf-8,{quote(file.getvalue(), safe=',')}")


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return cell(value)
    return f"{value:.6g}" if math.isfinite(value) else ""


def of_comparisons(name: str, rows: Sequence[SummaryRow]) -> Download:
    """A line for each comparison."""
    columns = ["task", "arm", "pairs", "baseline", "score", "difference", "anytime_low", "anytime_high"]
    return download(
        name,
        [*columns, "fixed_low", "fixed_high", "verdict"],
        [
            (
                *(r.task, r.arm, r.n, r.baseline_mean, r.arm_mean, r.difference, r.low, r.high),
                *(r.fixed_low, r.fixed_high, r.verdict.value),
            )
            for r in rows
        ],
    )


def of_pairs(comparisons: Sequence[Comparison]) -> Download:
    """A line for each pair."""
    return download(
        "pairs",
        ["task", "arm", "seed", "baseline", "score", "difference", "baseline_ended", "ended"],
        [
            (c.task["name"], c.arm, p.seed, p.before, p.after, p.difference, p.baseline.status, p.arm.status)
            for c in comparisons
            for p in c.pairs
        ],
    )


def of_bands(bands: Sequence[tuple[SummaryRow, Running]]) -> Download:
    """A line for each number of pairs."""
    return download(
        "running",
        ["task", "arm", "pairs", "difference", "anytime_low", "anytime_high"],
        [
            (row.task, row.arm, *numbers)
            for row, band in bands
            for numbers in zip(*(x.tolist() for x in (band.n, band.mean, band.low, band.high)), strict=True)
        ],
    )


def of_losses(trials: Sequence[TrialRecord], *, singly: bool) -> Download:
    """A line for each point of each trial's smoothed curve; if not ``singly``, of each arm's mean."""
    curves = [(r.task, r.arm, str(r.seed), smooth(np.array(r.loss_curve))) for r in trials]
    if not singly:
        of_arms = dict.fromkeys((task, arm) for task, arm, _, _ in curves)
        means = []
        for key in of_arms:
            mine = [curve for task, arm, _, curve in curves if (task, arm) == key]
            shared = min(curve.size for curve in mine)
            means.append((*key, "mean", np.mean([curve[:shared] for curve in mine], axis=0)))
        curves = means
    most = max(10, min(100, LOSSES // max(1, len(curves))))
    return download(
        "loss",
        ["task", "arm", "seed", "step", "loss"],
        [
            (task, arm, seed, place + 1, float(curve[place]))
            for task, arm, seed, curve in curves
            for place in range(0, curve.size, max(1, -(-curve.size // most)))
        ],
    )


def of_combinations(name: str, combinations: Sequence[Combination]) -> Download:
    """A line for each method and seed."""
    return download(
        name,
        ["task", "without", "with", "seed", "score_without", "score_with"],
        [
            (c.task["name"], c.without, c.combined, *numbers)
            for c in combinations
            for numbers in zip(c.seeds, c.before, c.after, strict=True)
        ],
    )


def of_movements(name: str, moved: Sequence[Movement]) -> Download:
    """A line for each role and arm; percent."""
    return download(
        name,
        ["role", "arm", "moved", "against_baseline", "fixed_low", "fixed_high", "grown"],
        [(m.role, m.arm, m.moved, m.against, m.interval.low, m.interval.high, m.grown) for m in moved],
    )


def of_search(rows: Sequence[SearchRow]) -> Download:
    """A line for each trial of the search."""
    return download(
        "search",
        ["arm", "trial", "seed", "score", "best_so_far"],
        [(row.asked, t.number, t.seed, t.score, t.best) for row in rows for t in row.trials],
    )
