"""What do the pairs look like? Each function draws one figure as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from noisytune.records import TrialRecord
from noisytune.report.evidence.combinations import Combination
from noisytune.report.evidence.pairs import Comparison, Evidence
from noisytune.report.evidence.search import SearchRow
from noisytune.report.evidence.summary import SummaryRow
from noisytune.report.page import svg
from noisytune.report.page.wording import count, number, span
from noisytune.report.statistics.paired import Floats, Running, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS_UP_TO = 30
"""Pairs up to which the running band is drawn as one bar a pair; beyond it is a filled band."""


def arm_colour(arms: Sequence[str], arm: str) -> str:
    """The stand-in colour of an arm, the same in every figure."""
    place = list(arms).index(arm)
    return svg.ARMS[(place - 1) % len(svg.ARMS)] if place else svg.BASELINE


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


def forest(rows: Sequence[SummaryRow], differences: Sequence[Floats], margin: float, *, key: str = "forest") -> str:
    """Mean paired differences: thick the anytime-valid interval, thin the fixed-n one, an arrow where one runs on.

    Args:
        rows: those with a pair, one line each.
        differences: of each row's pairs, shown as small dots below its line.
        margin: in points, shaded.
        key: see `svg.inline`.
    """
    reach = _reach(rows, differences, margin)
    tasks, arms = {row.task for row in rows}, {row.arm for row in rows}
    with svg.drawing(max(150, 52 + 60 * len(rows))) as (figure, axes):
        _zero_and_margin(axes, margin, vertical=True)
        for y, (row, pairs) in enumerate(zip(rows, differences, strict=True)):
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
            axes.plot(pairs, np.full(pairs.size, y + 0.24), "o", color=svg.MUTED, markersize=3.5, alpha=0.7)
            told = [row.task] * (len(tasks) > 1) + [row.arm] * (len(arms) > 1 or len(tasks) == 1)
            name = svg.shortened(" · ".join(told), 22)
            words = f"{number(row.difference, True)}  [{number(row.low)}, {number(row.high)}]"
            for x, text, side, ink in ((0, name, "left", svg.INK), (1, words, "right", svg.MUTED)):
                axes.annotate(
                    text,
                    (x, y - 0.2),
                    xycoords=("axes fraction", "data"),
                    va="bottom",
                    ha=side,
                    color=ink,
                )
        axes.set_ylim(len(rows) - 0.6, -0.58)
        axes.set_xlim(-reach, reach)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mean paired difference, points")
        said = "; ".join(f"{r.task}, {r.arm}: {number(r.difference, True)} ({span(r.low, r.high)})" for r in rows)
        return svg.inline(figure, key=key, title="Mean paired differences with their intervals", description=said)


def running_band(band: Running, margin: float, colour: str, *, key: str, unit: str = "pair") -> str:
    """The mean difference and its anytime-valid band after each pair."""
    n, mean, low, high = band.n, band.mean, band.low, band.high
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
        axes.set_xlim(0.4, n.size + 0.6)
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


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The same heights, moved up as little as needed to lie ``gap`` apart."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=lambda i: placed[i])
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    return placed


def slope(comparison: Comparison, *, key: str) -> str:
    """Each seed's score without and with the arm; a cross marks a run that collapsed or diverged."""
    pairs = comparison.pairs
    scores = [p.before for p in pairs] + [p.after for p in pairs]
    room = max(max(scores) - min(scores), 1.0)
    with svg.drawing(225) as (figure, axes):
        for p in pairs:
            colour = svg.GOOD if p.difference > 0 else svg.BAD if p.difference < 0 else svg.MUTED
            axes.plot([0, 1], [p.before, p.after], color=colour, linewidth=1.3, alpha=0.85)
            for x, y, record in ((0, p.before, p.baseline), (1, p.after, p.arm)):
                mark = "o" if record.status == "ok" else "X"
                axes.plot([x], [y], mark, color=colour, markersize=4.5 if mark == "o" else 8)
        means = [float(np.mean([p.before for p in pairs])), float(np.mean([p.after for p in pairs]))]
        axes.plot([0, 1], means, color=svg.INK, linewidth=3, solid_capstyle="round", zorder=5)
        low, high = min(scores) - 0.06 * room, max(scores) + 0.06 * room
        if len(pairs) <= 10:
            places = _apart([p.after for p in pairs], 0.085 * room)
            for p, y in zip(pairs, places, strict=True):
                axes.annotate(
                    f"seed {p.seed}", (1, y), xytext=(8, 0), textcoords="offset points", va="center", color=svg.MUTED
                )
            high = max(high, max(places) + 0.06 * room)
        names = svg.shortened(pairs[0].baseline.arm, 16), svg.shortened(comparison.arm, 20)
        axes.set_xlim(-0.25, 1.38)
        axes.set_ylim(low, high)
        axes.set_xticks([0, 1], [f"{name}\n{number(mean)}" for name, mean in zip(names, means, strict=True)])
        axes.tick_params(axis="x", labelcolor=svg.INK)
        axes.set_ylabel(f"{svg.shortened(comparison.task['metric_label'])}, points")
        said = "; ".join(f"seed {p.seed}: {number(p.before)} to {number(p.after)}" for p in pairs)
        title = f"Scores of each seed without and with {comparison.arm}"
        return svg.inline(figure, key=key, title=title, description=said)


def _smooth(curve: Floats) -> Floats:
    """Running mean over a twentieth of the curve, shorter at its ends."""
    half = max(1, curve.size // 40)
    sums = np.concatenate([[0.0], np.cumsum(curve)])
    at = np.arange(curve.size)
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, curve.size)
    smooth: Floats = (sums[last] - sums[first]) / (last - first)
    return smooth


def loss_curves(records: Sequence[TrialRecord], arms: Sequence[str], *, key: str) -> str:
    """Training loss by step, smoothed: thick the mean over seeds as far as all of them got, thin each seed."""
    with svg.drawing(245) as (figure, axes):
        ends = []
        for arm in arms:
            curves = [_smooth(np.array(r.loss_curve)) for r in records if r.arm == arm and r.loss_curve]
            if not curves:
                continue
            colour = arm_colour(arms, arm)
            for curve in curves:
                step = max(1, curve.size // 200)
                axes.plot(np.arange(1, curve.size + 1)[::step], curve[::step], color=colour, linewidth=0.7, alpha=0.35)
            mean = np.mean([c[: min(c.size for c in curves)] for c in curves], axis=0)
            step = max(1, mean.size // 200)
            steps = np.arange(1, mean.size + 1)[::step]
            axes.plot(steps, mean[::step], color=colour, linewidth=2.2, label=svg.shortened(arm, 24), zorder=4)
            ends.append(f"{arm}: {mean[-1]:.3g}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("training loss")
        columns = 3 if all(len(arm) <= 10 for arm in arms) else 2 if all(len(arm) <= 16 for arm in arms) else 1
        figure.legend(loc="outside upper left", ncols=columns, handlelength=1.2, columnspacing=1.2)
        said = "mean loss at the end: " + "; ".join(ends)
        return svg.inline(figure, key=key, title="Training loss by step", description=said)


def with_and_without(combinations: Sequence[Combination], *, key: str) -> str:
    """Mean scores of each arm of one task, hollow without NoisyTune and filled with it, and the gain's interval."""
    reaches = []
    for c in combinations:
        start, fixed = float(np.mean(c.before)), c.summary.fixed
        ends = [start + gain for gain in (fixed.low, fixed.high) if math.isfinite(gain)]
        reaches += [start, float(np.mean(c.after)), *ends]
    left, right = min(reaches), max(reaches)
    room = max(right - left, 1.0)
    with svg.drawing(80 + 62 * len(combinations)) as (figure, axes):
        for y, c in enumerate(combinations):
            means = float(np.mean(c.before)), float(np.mean(c.after))
            colour = svg.GOOD if means[1] > means[0] else svg.BAD if means[1] < means[0] else svg.MUTED
            low, high = c.summary.fixed.low, c.summary.fixed.high
            whisker = max(means[0] + low, left - room), min(means[0] + high, right + room)
            axes.plot(whisker, [y, y], color=colour, linewidth=1.4, zorder=2)
            axes.plot(means, [y, y], color=colour, linewidth=4, zorder=3)
            axes.plot(means[:1], [y], "o", markersize=9, markerfacecolor=svg.PAPER, color=colour, zorder=4)
            axes.plot(means[1:], [y], "o", markersize=9, color=colour, zorder=5)
            words = f"{number(c.summary.mean, True)}  [{number(low)}, {number(high)}]"
            for x, text, side, ink in (
                (0, svg.shortened(c.without, 22), "left", svg.INK),
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


def search_progress(rows: Sequence[SearchRow], metric: str, *, key: str) -> str:
    """Scores of every arm's search: a dot a trial, a line the best so far, a diamond the winner with fresh seeds."""
    arms, n = [row.arm for row in rows], len(rows[0].trials)
    fresh = 1.12 * n + 0.8
    with svg.drawing(270) as (figure, axes):
        said = []
        for place, row in enumerate(rows):
            colour, name = arm_colour(arms, row.arm), svg.shortened(row.asked, 24)
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
        figure.legend(loc="outside upper left", ncols=2 if len(rows) > 1 else 1, handlelength=1.2, columnspacing=1.2)
        return svg.inline(figure, key=key, title="Scores of the search, trial by trial", description="; ".join(said))


def lambda_curve(evidence: Evidence, rows: Sequence[SummaryRow], *, key: str) -> str:
    """Mean paired difference of one task by noise_lambda, with the intervals of the forest plot."""
    lambdas = {c.arm: c.noise_lambda for c in evidence.comparisons}
    points = sorted((v, row) for row in rows if row.n > 0 and (v := lambdas[row.arm]) is not None)
    x = np.array([0.0] + [v for v, _ in points])
    y = np.array([0.0] + [row.difference for _, row in points])
    fixed = [max(abs(r.fixed_low), abs(r.fixed_high)) for _, r in points]
    reach = 1.15 * max([evidence.study.margin, 1e-3, *np.abs(y)] + [f for f in fixed if math.isfinite(f)])
    with svg.drawing(225) as (figure, axes):
        _zero_and_margin(axes, evidence.study.margin, vertical=False)
        for value, row in points:
            colour = _verdict_colour(row.verdict)
            for low, high, width, alpha in (
                (row.low, row.high, 8.0, 0.25),
                (row.fixed_low, row.fixed_high, 1.4, 1.0),
            ):
                ends = max(low, -reach), min(high, reach)
                axes.plot([value, value], ends, color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt")
        axes.plot(x, y, "o-", color=svg.INK, linewidth=1.4, markersize=5)
        axes.set_ylim(-reach, reach)
        axes.set_xticks(x, [f"{v:g}" for v in x])
        axes.set_xlabel("λ (0 is the baseline)")
        axes.set_ylabel("mean difference, points")
        said = "; ".join(f"λ = {v:g}: {number(row.difference, True)}" for v, row in points)
        return svg.inline(figure, key=key, title="Mean paired difference by noise_lambda", description=said)
