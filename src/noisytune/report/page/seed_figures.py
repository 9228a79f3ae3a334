"""What did each seed do? Scores and losses seed by seed, of many seeds the quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from noisytune.records import TrialRecord
from noisytune.report.evidence.pairs import Comparison, Pair
from noisytune.report.page import svg
from noisytune.report.page.figures import BANDS, POINTS, arm_colour, arm_line
from noisytune.report.page.wording import count, number
from noisytune.report.statistics.intervals import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The same heights, moved up as little as needed to lie ``gap`` apart."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=lambda i: placed[i])
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    return placed


def slope(comparison: Comparison, *, singly: bool = True, key: str) -> str:
    """Each seed's score without and with the arm; if not ``singly``, how many seeds have which score."""
    pairs = comparison.pairs
    scores = [p.before for p in pairs] + [p.after for p in pairs]
    room = max(max(scores) - min(scores), 1.0)
    low, high = min(scores) - 0.06 * room, max(scores) + 0.06 * room
    with svg.drawing(225) as (figure, axes):
        if singly:
            high = max(high, _each_pair(axes, pairs, room))
        else:
            _counts(axes, pairs, (low, high))
        means = [float(np.mean([p.before for p in pairs])), float(np.mean([p.after for p in pairs]))]
        axes.plot([0, 1], means, color=svg.INK, linewidth=3, solid_capstyle="round", zorder=5)
        names = svg.told_apart([pairs[0].baseline.arm, comparison.arm], 20)
        axes.set_xlim(-0.25, 1.38)
        axes.set_ylim(low, high)
        axes.set_xticks([0, 1], [f"{name}\n{number(mean)}" for name, mean in zip(names, means, strict=True)])
        axes.tick_params(axis="x", labelcolor=svg.INK)
        axes.set_ylabel("\n".join(wrap(f"{svg.shortened(comparison.task['metric_label'], 34)}, points", 22)))
        title = f"Scores of each seed without and with {comparison.arm}"
        return svg.inline(figure, key=key, title=title, description=_said(pairs, means, singly))


def _said(pairs: Sequence[Pair], means: Sequence[float], singly: bool) -> str:
    if singly:
        return "; ".join(f"seed {p.seed}: {number(p.before)} to {number(p.after)}" for p in pairs)
    better, worse = (sum(sign * p.difference > 0 for p in pairs) for sign in (1, -1))
    changed = f"{number(means[0])} to {number(means[1])} on average"
    return f"{count(len(pairs), 'seed')}: {changed}; better in {better}, worse in {worse}"


def _each_pair(axes: Axes, pairs: Sequence[Pair], room: float) -> float:
    """A line a pair; a cross marks a run that did not end well. Returns how high the names of the seeds reach."""
    for p in pairs:
        colour = svg.GOOD if p.difference > 0 else svg.BAD if p.difference < 0 else svg.MUTED
        axes.plot([0, 1], [p.before, p.after], color=colour, linewidth=1.3, alpha=0.85)
        for x, y, record in ((0, p.before, p.baseline), (1, p.after, p.arm)):
            mark = "o" if record.status == "ok" else "X"
            axes.plot([x], [y], mark, color=colour, markersize=4.5 if mark == "o" else 8)
    if len(pairs) > 10:
        return -np.inf
    places = _apart([p.after for p in pairs], 0.085 * room)
    for p, y in zip(pairs, places, strict=True):
        axes.annotate(f"seed {p.seed}", (1, y), xytext=(8, 0), textcoords="offset points", va="center", color=svg.MUTED)
    return max(places) + 0.06 * room


def _counts(axes: Axes, pairs: Sequence[Pair], ends: tuple[float, float]) -> None:
    """Bars outwards from either side: how many seeds have a score of this size."""
    borders = np.linspace(*ends, 41)
    sides = [np.histogram(scores, borders)[0] for scores in ([p.before for p in pairs], [p.after for p in pairs])]
    most = max(int(counts.max()) for counts in sides)
    middles, height = (borders[1:] + borders[:-1]) / 2, borders[1] - borders[0]
    for x, way, counts, colour in zip((0, 1), (-1, 1), sides, (svg.BASELINE, svg.ARMS[0]), strict=True):
        axes.barh(middles, 0.24 * way * counts / most, height, left=x, color=colour, alpha=0.6, linewidth=0)


def smooth(curve: Floats) -> Floats:
    """Running mean over a twentieth of a curve, shorter at its ends."""
    half = max(1, curve.size // 40)
    sums = np.concatenate([[0.0], np.cumsum(curve)])
    at = np.arange(curve.size)
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, curve.size)
    smooth: Floats = (sums[last] - sums[first]) / (last - first)
    return smooth


def loss_curves(records: Sequence[TrialRecord], arms: Sequence[str], *, singly: bool = True, key: str) -> str:
    """Training loss by step, smoothed: thick the mean over seeds as far as all of them got, thin each seed.

    If not ``singly``: thick the mean as far as half of them got, and a band for the middle 90 %.
    """
    there = [arm for arm in arms if any(r.arm == arm and r.loss_curve for r in records)]
    names = svg.told_apart(there)
    with svg.drawing(245) as (figure, axes):
        ends = []
        for arm, name in zip(there, names, strict=True):
            curves = [smooth(np.array(r.loss_curve)) for r in records if r.arm == arm and r.loss_curve]
            colour = arm_colour(arms, arm)
            draw = _each_curve if singly else _band_of_curves
            steps, mean = draw(axes, curves, colour)
            axes.plot(steps, mean, arm_line(arms, arm), color=colour, linewidth=2.2, label=name, zorder=4)
            ends.append(f"{arm}: {mean[-1]:.3g}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("training loss")
        svg.legend(figure, names)
        said = "mean loss at the end: " + "; ".join(ends)
        return svg.inline(figure, key=key, title="Training loss by step", description=said)


def _each_curve(axes: Axes, curves: Sequence[Floats], colour: str) -> tuple[Floats, Floats]:
    """Draws each; returns steps and mean."""
    for curve in curves:
        step = max(1, curve.size // 200)
        axes.plot(np.arange(1, curve.size + 1)[::step], curve[::step], color=colour, linewidth=0.7, alpha=0.35)
    mean = np.mean([c[: min(c.size for c in curves)] for c in curves], axis=0)
    step = max(1, mean.size // 200)
    return np.arange(1, mean.size + 1, dtype=float)[::step], mean[::step]


def _band_of_curves(axes: Axes, curves: Sequence[Floats], colour: str) -> tuple[Floats, Floats]:
    """Draws where the middle 90 % of those lie that got so far; returns steps and mean."""
    last = int(np.median([curve.size for curve in curves]))
    at = np.unique(np.linspace(0, last - 1, min(last, POINTS // 3)).round().astype(int))
    known = [np.array([c[i] for c in curves if c.size > i]) for i in at]
    steps: Floats = at + 1.0
    low, high = np.transpose([np.quantile(values, BANDS[0]) for values in known])
    axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    return steps, np.array([values.mean() for values in known])
