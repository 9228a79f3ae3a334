"""What do the pairs look like? Each function draws one figure as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from noisytune.report.evidence.combinations import Combination
from noisytune.report.evidence.pairs import Evidence
from noisytune.report.evidence.search import SearchRow
from noisytune.report.evidence.summary import SummaryRow
from noisytune.report.page import svg
from noisytune.report.page.wording import count, number, span
from noisytune.report.statistics.intervals import Floats, Running
from noisytune.report.statistics.paired import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS_UP_TO = 30
"""Pairs up to which the running band is drawn as one bar a pair; beyond it is a filled band."""
POINTS = 300
"""Of a long curve, those that are drawn."""
BANDS = ((0.05, 0.95), (0.25, 0.75))
"""The quantiles between which a band is drawn: the middle 90 %, and the middle half."""


def arm_colour(arms: Sequence[str], arm: str) -> str:
    """The stand-in colour of an arm, the same in every figure."""
    place = list(arms).index(arm)
    return svg.ARMS[(place - 1) % len(svg.ARMS)] if place else svg.BASELINE


def arm_line(arms: Sequence[str], arm: str) -> str:
    """The line style of an arm: it tells arms of the same colour apart."""
    return ("-", "--", ":", "-.")[max(list(arms).index(arm) - 1, 0) // len(svg.ARMS) % 4]


def arm_mark(arms: Sequence[str], arm: str) -> str:
    """The marker of an arm: it tells arms of the same colour apart."""
    return "osD^"[max(list(arms).index(arm) - 1, 0) // len(svg.ARMS) % 4]


def _verdict_colour(verdict: Verdict) -> str:
    return {Verdict.HELPED: svg.GOOD, Verdict.HURT: svg.BAD}.get(verdict, svg.INK)


def _zero_and_margin(axes: Axes, margin: float, *, vertical: bool) -> None:
    span_, line = (axes.axvspan, axes.axvline) if vertical else (axes.axhspan, axes.axhline)
    if margin > 0:
        span_(-margin, margin, color=svg.MUTED, alpha=0.12, linewidth=0, zorder=0)
    line(0.0, color=svg.MUTED, linewidth=1.0, zorder=1)


def _reach(rows: Sequence[SummaryRow], differences: Sequence[Floats], margin: float) -> float:
    """How far the axis goes: all pairs and fixed-n intervals; the anytime-valid ones where they do not dwarf those."""
    sizes = [margin * 1.3, 1e-3, *(abs(d) for values in differences for d in values)]
    for row in rows:
        sizes += [abs(row.difference), abs(row.fixed_low), abs(row.fixed_high)]
    reach = 1.1 * max(float(size) for size in sizes if math.isfinite(size))
    return max([reach, *(1.05 * w for row in rows if (w := max(abs(row.low), abs(row.high))) < 4 * reach)])


@dataclass(frozen=True)
class Lines:
    """The comparisons of one figure, of which each panel draws some on the same axis."""

    rows: Sequence[SummaryRow]
    """Those with a pair, one line each."""
    differences: Sequence[Floats]
    """Of each row's pairs, shown below its line."""
    margin: float
    """In points, shaded."""
    singly: bool = True
    """A dot for each pair; else lines where the middle half and the middle 90 % of them lie."""


def forest(lines: Lines, start: int, stop: int, *, key: str = "forest") -> str:
    """Mean paired differences: thick the anytime-valid interval, thin the fixed-n one, an arrow where one runs on.

    Args:
        lines: of the whole figure.
        start: the first that is drawn.
        stop: the first that is not drawn any more.
        key: see `svg.inline`.
    """
    shown = lines.differences if lines.singly else [np.quantile(values, BANDS[0]) for values in lines.differences]
    reach = _reach(lines.rows, shown, lines.margin)
    rows, names = lines.rows[start:stop], _row_names(lines.rows)[start:stop]
    line = 60 + svg.LINE * max(name.count("\n") for name in names)
    with svg.drawing(max(150, 52 + line * len(rows))) as (figure, axes):
        _zero_and_margin(axes, lines.margin, vertical=True)
        for y, (row, pairs) in enumerate(zip(rows, lines.differences[start:stop], strict=True)):
            _difference(axes, row, y, reach)
            if lines.singly:
                axes.plot(pairs, np.full(pairs.size, y + 0.24), "o", color=svg.MUTED, markersize=3.5, alpha=0.7)
            else:
                for quantiles, width in zip(BANDS, (1.5, 5.0), strict=True):
                    axes.plot(np.quantile(pairs, quantiles), [y + 0.24] * 2, color=svg.MUTED, linewidth=width)
            words = f"{number(row.difference, True)}  [{number(row.low)}, {number(row.high)}]"
            for x, text, side, ink in ((0, names[y], "left", svg.INK), (1, words, "right", svg.MUTED)):
                axes.annotate(text, (x, y - 0.2), xycoords=("axes fraction", "data"), va="bottom", ha=side, color=ink)
        axes.set_ylim(len(rows) - 0.6, -0.58)
        axes.set_xlim(-reach, reach)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=7)
        axes.set_xlabel("mean paired difference, points")
        said = "; ".join(f"{r.task}, {r.arm}: {number(r.difference, True)} ({span(r.low, r.high)})" for r in rows)
        return svg.inline(figure, key=key, title="Mean paired differences with their intervals", description=said)


def _difference(axes: Axes, row: SummaryRow, y: float, reach: float) -> None:
    """A dot with its two intervals."""
    colour = _verdict_colour(row.verdict)
    for low, high, width, alpha in (
        (row.low, row.high, 8.0, 0.3),
        (row.fixed_low, row.fixed_high, 1.8, 1.0),
    ):
        ends = max(low, -reach), min(high, reach)
        axes.plot(ends, [y, y], color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt", zorder=3)
    for beyond, x, marker in ((row.low < -reach, -reach, "<"), (row.high > reach, reach, ">")):
        if beyond:
            axes.plot([x], [y], marker=marker, markersize=8, color=colour, clip_on=False, zorder=5)
    axes.plot([row.difference], [y], "o", color=colour, markersize=7, zorder=6)


def _row_names(rows: Sequence[SummaryRow]) -> list[str]:
    """The task where there are several, and the arm, unless it goes without saying."""
    tasks, arms = {row.task for row in rows}, {row.arm for row in rows}
    told = [[row.task] * (len(tasks) > 1) + [row.arm] * (len(arms) > 1 or len(tasks) == 1) for row in rows]
    return svg.told_apart([" · ".join(words) for words in told])


def running_band(band: Running, margin: float, colour: str, *, key: str, unit: str = "pair") -> str:
    """The mean difference and its anytime-valid band after each pair."""
    kept = np.unique(np.linspace(0, band.n.size - 1, min(band.n.size, POINTS)).round().astype(int))
    n, mean, low, high = band.n[kept], band.mean[kept], band.low[kept], band.high[kept]
    last = max(abs(low[-1]), abs(high[-1]))
    reach = max(1.5 * margin, 1.3 * float(np.abs(mean).max()), 1.2 * last if math.isfinite(last) else 0.0, 1e-3)
    bottom, top = np.clip(low, -reach, reach), np.clip(high, -reach, reach)
    bounded = np.isfinite(low)
    with svg.drawing(225) as (figure, axes):
        _zero_and_margin(axes, margin, vertical=False)
        if n.size <= BARS_UP_TO:
            width = min(14.0, 180.0 / n.size)
            for keep, alpha in ((bounded, 0.32), (~bounded, 0.1)):
                axes.vlines(n[keep], bottom[keep], top[keep], color=colour, linewidth=width, alpha=alpha)
        else:
            axes.fill_between(n, bottom, top, where=bounded.tolist(), color=colour, alpha=0.25, linewidth=0)
        dots = "o-" if n.size <= BARS_UP_TO else "-"
        axes.plot(n, mean, dots, color=svg.INK, markersize=4, linewidth=1.6)
        axes.set_xlim(0.4, n[-1] + 0.6)
        axes.set_ylim(-reach, reach)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel(f"{unit}s so far")
        axes.set_ylabel("mean difference, points")
        where = f"after {count(int(n[-1]), unit)}: {number(float(mean[-1]), True)}"
        return svg.inline(
            figure,
            key=key,
            title="Running mean difference with its anytime-valid band",
            description=f"{where}, band {span(float(low[-1]), float(high[-1]))}",
        )


def with_and_without(combinations: Sequence[Combination], *, key: str) -> str:
    """Mean scores of each arm of one task, hollow without NoisyTune and filled with it, and the gain's interval."""
    reaches = []
    for c in combinations:
        fixed, after = c.summary.fixed, float(np.mean(c.after))
        ends = [after + gain - c.summary.mean for gain in (fixed.low, fixed.high) if math.isfinite(gain)]
        reaches += [float(np.mean(c.before)), after, *ends]
    left, right = min(reaches), max(reaches)
    room = max(right - left, 1.0)
    names = svg.told_apart([c.without for c in combinations])
    line = 62 + svg.LINE * max(name.count("\n") for name in names)
    with svg.drawing(80 + line * len(combinations)) as (figure, axes):
        for y, c in enumerate(combinations):
            means = float(np.mean(c.before)), float(np.mean(c.after))
            gain = c.summary.mean
            colour = svg.GOOD if gain > 0 else svg.BAD if gain < 0 else svg.MUTED
            # About the arm's own mean, whichever way is better: the interval reaches as far on both sides.
            low, high = c.summary.fixed.low, c.summary.fixed.high
            whisker = max(means[1] + low - gain, left - room), min(means[1] + high - gain, right + room)
            axes.plot(whisker, [y, y], color=colour, linewidth=1.4, zorder=2)
            axes.plot(means, [y, y], color=colour, linewidth=4, zorder=3)
            axes.plot(means[:1], [y], "o", markersize=9, markerfacecolor=svg.PAPER, color=colour, zorder=4)
            axes.plot(means[1:], [y], "o", markersize=9, color=colour, zorder=5)
            words = f"{number(gain, True)}  [{number(low)}, {number(high)}]"
            for x, text, side, ink in (
                (0, names[y], "left", svg.INK),
                (1, words, "right", svg.MUTED),
            ):
                axes.annotate(text, (x, y - 0.2), xycoords=("axes fraction", "data"), va="bottom", ha=side, color=ink)
        axes.set_ylim(len(combinations) - 0.5, -0.6)
        axes.set_xlim(left - 0.06 * room, right + 0.06 * room)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{svg.shortened(combinations[0].task['metric_label'])}, points")
        told = [(c.without, number(float(np.mean(c.before))), number(float(np.mean(c.after)))) for c in combinations]
        said = "; ".join(f"{arm}: {before} without, {after} with NoisyTune" for arm, before, after in told)
        return svg.inline(figure, key=key, title="Each method without and with NoisyTune", description=said)


def search_progress(rows: Sequence[SearchRow], metric: str) -> str:
    """Scores of every arm's search: a dot a trial, a line the best so far, a diamond the winner with fresh seeds."""
    arms, n = [row.arm for row in rows], len(rows[0].trials)
    names = svg.told_apart([row.asked for row in rows])
    fresh = 1.12 * n + 0.8
    with svg.drawing(270) as (figure, axes):
        said = []
        for place, row in enumerate(rows):
            colour, name = arm_colour(arms, row.arm), names[place]
            x = np.array([trial.number for trial in row.trials])
            scores = np.array([trial.score for trial in row.trials])
            axes.plot(x, scores, "o", color=colour, markersize=4.5, alpha=0.55, zorder=3)
            axes.step(x, [t.best for t in row.trials], where="post", color=colour, linewidth=2, label=name, zorder=4)
            axes.plot([row.winner.number], [row.winner.score], "o", color=colour, markersize=8, zorder=5)
            at = fresh + 0.03 * n * (place - (len(rows) - 1) / 2)
            if row.reruns:
                axes.plot([at], [row.mean], "D", color=colour, markersize=7, zorder=6)
            if len(row.reruns) > 1:
                axes.plot([at, at], [row.mean - row.sd, row.mean + row.sd], color=colour, linewidth=1.8, zorder=5)
            said.append(f"{row.asked}: best {number(row.winner.score)}, with fresh seeds {number(row.mean)}")
        marks = [m for m in axes.xaxis.get_major_locator().tick_values(1, n) if m == int(m) and 1 <= m <= n]
        axes.set_xticks([*marks, fresh], [*(f"{m:g}" for m in marks), "fresh\nseeds"])
        axes.set_xlim(0.5, fresh + max(0.5, 0.05 * n))
        axes.set_xlabel("trial of the search")
        axes.set_ylabel(f"{svg.shortened(metric)}, points")
        svg.legend(figure, names)
        return svg.inline(
            figure, key="search", title="Scores of the search, trial by trial", description="; ".join(said)
        )


def lambda_curve(evidence: Evidence, rows: Sequence[SummaryRow], *, key: str) -> str:
    """Mean paired difference of one task by noise_lambda, with the intervals of the forest plot."""
    families = _families(evidence, rows)
    points = [point for of_kind in families.values() for point in of_kind]
    x = sorted({0.0, *(v for v, _ in points)})
    fixed = [max(abs(r.fixed_low), abs(r.fixed_high)) for _, r in points]
    seen = [abs(row.difference) for _, row in points]
    reach = 1.15 * max([evidence.study.margin, 1e-3, *seen] + [f for f in fixed if math.isfinite(f)])
    aside = 0.02 * x[-1]
    with svg.drawing(225) as (figure, axes):
        _zero_and_margin(axes, evidence.study.margin, vertical=False)
        for i, (kind, of_kind) in enumerate(families.items()):
            shift = aside * (i - (len(families) - 1) / 2)
            for value, row in of_kind:
                colour = _verdict_colour(row.verdict)
                for low, high, width, alpha in (
                    (row.low, row.high, 8.0, 0.25),
                    (row.fixed_low, row.fixed_high, 1.4, 1.0),
                ):
                    at, ends = [value + shift] * 2, (max(low, -reach), min(high, reach))
                    axes.plot(at, ends, color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt")
            line, means = [0.0, *(v + shift for v, _ in of_kind)], [0.0, *(row.difference for _, row in of_kind)]
            kinds = ["", *families]
            mark = arm_mark(kinds, kind) + arm_line(kinds, kind)
            ink = arm_colour(kinds, kind) if len(families) > 1 else svg.INK
            axes.plot(line, means, mark, color=ink, linewidth=1.4, markersize=5, label=kind)
        if len(families) > 1:
            svg.legend(figure, list(families))
        axes.set_ylim(-reach, reach)
        axes.set_xticks(x, [f"{v:g}" for v in x])
        axes.set_xlabel("λ (0 is the baseline)")
        axes.set_ylabel("mean difference, points")
        several = len(families) > 1
        said = "; ".join(
            f"{f'{kind}, ' if several else ''}λ = {v:g}: {number(row.difference, True)}"
            for kind, of_kind in families.items()
            for v, row in of_kind
        )
        return svg.inline(figure, key=key, title="Mean paired difference by noise_lambda", description=said)


def _families(evidence: Evidence, rows: Sequence[SummaryRow]) -> dict[str, list[tuple[float, SummaryRow]]]:
    """Arms that differ in λ alone, by what sets them apart from the others: each with its λ, the smallest first."""
    lambdas = {c.arm: c.noise_lambda for c in evidence.comparisons}
    methods = {record.arm: record.settings["arm"]["methods"] for record in evidence.trials.values()}
    points = [(strength, row) for row in rows if row.n > 0 and (strength := lambdas[row.arm]) is not None]
    settings = {row.arm: {name: str(value) for name, value in methods[row.arm][0].items()} for _, row in points}
    names = dict.fromkeys(name for own in settings.values() for name in own if name != "noise_lambda")
    differing = [name for name in names if len({own.get(name) for own in settings.values()}) > 1]
    found: dict[str, list[tuple[float, SummaryRow]]] = {}
    for point in sorted(points, key=lambda one: one[0]):
        own = settings[point[1].arm]
        kind = ", ".join(f"{name} {own.get(name, 'not set')}" for name in differing) or "NoisyTune"
        found.setdefault(kind, []).append(point)
    return found
