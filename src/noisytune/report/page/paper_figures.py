"""The paper's figures 2 (types of noise), 4 (share of the data) and 5 (movement of the weights), as inline SVG.

Figures 3 and 6, which other studies have as well, are in `noisytune.report.page.figures`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from noisytune.report.evidence.norms import Movement
from noisytune.report.evidence.pairs import Evidence
from noisytune.report.evidence.summary import SummaryRow
from noisytune.report.page import svg
from noisytune.report.page.figures import arm_colour, arm_line, arm_mark
from noisytune.report.page.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCALES = {"global": "global", "matrix": "matrix-wise"}
_DISTRIBUTIONS = {"gaussian": "Gaussian", "uniform": "uniform"}


def noise_types(evidence: Evidence, rows: Sequence[SummaryRow]) -> list[tuple[str, SummaryRow]]:
    """The arms that are nothing but noise, under the paper's names and in its order; empty unless the types differ.

    Args:
        evidence: of one study.
        rows: its arms on one task, or on all.
    """
    methods = {record.arm: record.settings["arm"]["methods"] for record in evidence.trials.values()}
    settings: dict[str, dict[str, Any]] = {
        arm: used[0] for arm, used in methods.items() if [one["method"] for one in used] == ["noisytune"]
    }
    found = []
    for scale, distribution in ((s, d) for s in _SCALES for d in _DISTRIBUTIONS):
        for row in rows:
            own = settings.get(row.arm, {})
            if own and (own.get("scale", "matrix"), own.get("distribution", "uniform")) == (scale, distribution):
                found.append((f"{_SCALES[scale]} {_DISTRIBUTIONS[distribution]}", row))
    if len({name for name, _ in found}) < 2:
        return []
    if len({settings[row.arm]["noise_lambda"] for _, row in found}) > 1:
        found = [(f"{name}, λ = {settings[row.arm]['noise_lambda']:g}", row) for name, row in found]
    return found


def noise_type_scores(types: Sequence[tuple[str, SummaryRow]], metric: str, *, key: str) -> str:
    """Mean scores of each type of noise against the line of the baseline, the interval of the difference about each."""
    start = types[0][1].baseline_mean
    reaches = [start] + [row.arm_mean for _, row in types]
    for _, row in types:
        reaches += [end for end in interval_of_score(row) if math.isfinite(end)]
    left, right = min(reaches), max(reaches)
    room = max(right - left, 1.0)
    with svg.drawing(80 + 52 * len(types)) as (figure, axes):
        axes.axvline(start, color=svg.MUTED, linewidth=1.4, zorder=1)
        for y, (name, row) in enumerate(types):
            colour = svg.GOOD if row.difference > 0 else svg.BAD if row.difference < 0 else svg.MUTED
            low, high = interval_of_score(row)
            ends = max(low, left - room), min(high, right + room)
            axes.plot(ends, [y, y], color=colour, linewidth=1.4, zorder=2)
            axes.plot([row.arm_mean], [y], "o", markersize=9, color=colour, zorder=3)
            words = f"{number(row.difference, True)}  [{number(row.fixed_low)}, {number(row.fixed_high)}]"
            for x, text, side, ink in ((0, svg.shortened(name, 32), "left", svg.INK), (1, words, "right", svg.MUTED)):
                _beside(axes, text, x, y - 0.2, side, ink)
        axes.set_ylim(len(types) - 0.5, -0.7)
        axes.set_xlim(left - 0.06 * room, right + 0.06 * room)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{svg.shortened(metric)}, points; line: no noise, {number(start)}")
        said = f"no noise: {number(start)}; " + "; ".join(f"{name}: {number(row.arm_mean)}" for name, row in types)
        return svg.inline(figure, key=key, title="Scores by type of noise", description=said)


def interval_of_score(row: SummaryRow) -> tuple[float, float]:
    """The difference's interval about the arm's own mean, whichever way is better: it reaches as far on both sides."""
    return row.arm_mean + row.fixed_low - row.difference, row.arm_mean + row.fixed_high - row.difference


def _beside(axes: Axes, text: str, x: float, y: float, side: str, ink: str) -> None:
    """Words above a line of the figure, at its left or right end, before what is drawn there."""
    box = {"facecolor": svg.PAPER, "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
    words = axes.annotate(text, (x, y), xytext=(0, 1), xycoords=("axes fraction", "data"), textcoords="offset points")
    words.set(va="bottom", ha=side, color=ink, bbox=box, zorder=5)


def by_share(evidence: Evidence, rows: Sequence[SummaryRow], *, key: str) -> str:
    """Mean scores of each arm by training examples.

    Args:
        evidence: of one study.
        rows: each arm at each share of one task.
        key: see `svg.inline`.
    """
    sizes = {task["name"]: int(task["train_size"]) for task in evidence.study.tasks}
    metric = next(task["metric_label"] for task in evidence.study.tasks if task["name"] == rows[0].task)
    arms = list(dict.fromkeys(row.arm for row in rows))
    names = dict(zip(arms, svg.told_apart(arms), strict=True))
    baseline = sorted({sizes[row.task]: row.baseline_mean for row in rows}.items())
    with svg.drawing(250) as (figure, axes):
        first = evidence.study.arms[0]
        label = svg.shortened(first)
        axes.plot(*zip(*baseline, strict=True), "o-", color=svg.BASELINE, linewidth=1.6, markersize=5, label=label)
        said = [f"{first}: " + ", ".join(f"{number(score)} at {size:,}" for size, score in baseline)]
        for arm in arms:
            mine = sorted((row for row in rows if row.arm == arm), key=lambda row: sizes[row.task])
            x, y = [sizes[row.task] for row in mine], [row.arm_mean for row in mine]
            colour = arm_colour(evidence.study.arms, arm)
            for size, row in zip(x, mine, strict=True):
                if math.isfinite(row.fixed_low):
                    axes.plot([size, size], interval_of_score(row), color=colour, linewidth=1.4, alpha=0.6)
            axes.plot(
                x,
                y,
                arm_mark(evidence.study.arms, arm) + arm_line(evidence.study.arms, arm),
                color=colour,
                linewidth=2,
                markersize=5,
                label=names[arm],
            )
            said.append(
                f"{arm}: " + ", ".join(f"{number(score)} at {size:,}" for size, score in zip(x, y, strict=True))
            )
        axes.set_xlabel("training examples")
        axes.set_ylabel(f"{svg.shortened(metric)}, points")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.locator_params(axis="x", nbins=6, integer=True)
        svg.legend(figure, [label, *names.values()])
        return svg.inline(figure, key=key, title="Scores by training examples", description="; ".join(said))


def norm_changes(moved: Sequence[Movement], arms: Sequence[str], *, key: str) -> str:
    """How much farther than in the baseline each role of parameter moved in each arm; in words how far it moved."""
    roles, there = list(dict.fromkeys(m.role for m in moved)), [a for a in arms if any(m.arm == a for m in moved)]
    found = {(m.role, m.arm): m for m in moved}
    largest = max([1e-3, *(abs(m.against) for m in moved)])
    ends = [abs(end) for m in moved for end in (m.interval.low, m.interval.high) if math.isfinite(end)]
    reach = 1.1 * min(max([largest, *ends]), 4 * largest)
    row, names = 32 + 8 * len(there), dict(zip(there, svg.told_apart(there, 40), strict=True))
    lines = sum(name.count("\n") + 1 for name in names.values())
    with svg.drawing(60 + row * len(roles) + 17 * lines) as (figure, axes):
        axes.axvline(0.0, color=svg.BASELINE, linewidth=1.4, zorder=1, label=names[there[0]])
        for y, role in enumerate(roles):
            for place, arm in enumerate(there[1:]):
                m, level = found[role, arm], y + (7 + 8 * place) / row
                colour = arm_colour(arms, arm)
                if math.isfinite(m.interval.low):
                    whisker = max(m.interval.low, -reach), min(m.interval.high, reach)
                    axes.plot(whisker, [level, level], color=colour, linewidth=1.4, zorder=2)
                label = names[arm] if y == 0 else None
                axes.plot([m.against], [level], arm_mark(arms, arm), color=colour, markersize=5, zorder=3, label=label)
            each = [f"{found[role, arm].moved:.3g}" for arm in there[:3]]
            words = (" → " if len(there) == 2 else " · ").join(each) + " …" * (len(there) > 3)
            for x, text, side, ink in ((0, role, "left", svg.INK), (1, words + " %", "right", svg.MUTED)):
                _beside(axes, text, x, y, side, ink)
        axes.set_ylim(len(roles) - 18 / row, -18 / row)
        axes.set_xlim(-reach, reach)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(f"moved farther than {svg.shortened(there[0], 20)}, percent of its movement")
        figure.legend(loc="outside upper left", ncols=1, handlelength=1.2)
        said = "; ".join(f"{m.role}, {m.arm}: {m.moved:.3g} %" for m in moved)
        return svg.inline(figure, key=key, title="Relative change of each role of parameter", description=said)
