"""What stands on the page? Everything the templates print, computed, with no markup but the figures' SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from noisytune.report import figures, items
from noisytune.report.combinations import combinations
from noisytune.report.evidence import Comparison, Evidence
from noisytune.report.facts import what_was_run
from noisytune.report.paired import running
from noisytune.report.search_view import search_view
from noisytune.report.summary import (
    SummaryRow,
    comparisons_at_once,
    differences,
    pooled_rows,
    primary_rows,
    task_rows,
)
from noisytune.report.wording import (
    count,
    failures,
    headline,
    number,
    page_notes,
    points,
    probability,
    scored_on,
    sentence,
    smallest_p,
    span,
)

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Card:
    """One figure with its title and a caption."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class ItemRow:
    """Item level of one comparison."""

    task: str
    arm: str
    bootstrap: items.Bootstrap | None
    why_not: str
    """Why there is no bootstrap, else empty."""
    seeds: tuple[tuple[int, items.McNemar], ...]


def item_rows(evidence: Evidence) -> list[ItemRow]:
    """McNemar per seed and the bootstrap, from the predictions of both runs of each pair."""
    rows = []
    for c in evidence.comparisons:
        pairs = [
            p
            for p in c.pairs
            if len(p.baseline.predictions) == len(p.arm.predictions) == len(p.arm.references) > 0
            and p.arm.references == p.baseline.references == c.pairs[0].baseline.references
        ]
        if not pairs:
            continue
        gold = pairs[0].arm.references
        tests = []
        if c.task["kind"] == "classification":
            tests = [(p.seed, items.mcnemar(p.baseline.predictions, p.arm.predictions, gold)) for p in pairs]
        bootstrap, why_not = None, _why_no_bootstrap(c, len(pairs))
        if not why_not:
            before, after = [p.baseline.predictions for p in pairs], [p.arm.predictions for p in pairs]
            metric = items.METRICS[c.task["metric"]]
            bootstrap = items.hierarchical_bootstrap(before, after, gold, metric, seed=BOOTSTRAP_SEED)
            if abs(bootstrap.mean - float(c.differences.mean())) > 0.01:
                bootstrap, why_not = None, "the metric recomputed from the predictions differs from the recorded one"
                if any(evidence.undefined(r) for p in pairs for r in (p.baseline, p.arm)):
                    why_not = "a run without a defined score cannot be recomputed"
        rows.append(ItemRow(c.task["name"], c.arm, bootstrap, why_not, tuple(tests)))
    return rows


def _why_no_bootstrap(comparison: Comparison, usable: int) -> str:
    if comparison.task["metric"] not in items.METRICS:
        return f"{comparison.task['metric']} cannot be recomputed from the predictions"
    if usable < len(comparison.pairs):
        return f"only {usable} of {count(len(comparison.pairs), 'pair')} have predictions on the same examples"
    return "needs two pairs" if usable < 2 else ""


def _key_numbers(row: SummaryRow) -> list[tuple[str, str, str]]:
    unit = "seeds" if row.pooled else "pairs"
    done = f"of {row.planned} planned" if row.n < row.planned else "as planned"
    few = "points; the verdict rests on this"
    if not math.isfinite(row.low):
        few = "too few pairs, or too many equal differences, to bound it"
    means = f"points, from {number(row.baseline_mean)} to {number(row.arm_mean)}"
    return [
        ("Mean difference", number(row.difference, True), means),
        ("Anytime-valid 95 %", span(row.low, row.high), few),
        ("Wins · ties · losses", f"{row.wins} · {row.ties} · {row.losses}", f"among {row.n} {unit}"),
        (unit.capitalize(), str(row.n), done),
    ]


def _forest_card(evidence: Evidence, rows: list[SummaryRow]) -> Card:
    caption = (
        "Large dot: mean. Thick line: anytime-valid 95 % interval, also in brackets. Thin line: fixed-n interval. "
        "Small dots: the single differences. Grey band: the margin."
    )
    if not all(math.isfinite(row.low) for row in rows):
        caption += " An arrow: the interval runs on."
    each = [differences(evidence, row) for row in rows]
    return Card("Differences from the baseline", caption, figures.forest(rows, each, evidence.study.margin))


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
    if any(r.status != "ok" for p in comparison.pairs for r in (p.baseline, p.arm)):
        caption += " A cross: the run collapsed or diverged."
    title = "Seed by seed" + (f": {', '.join(name)}" if name else "")
    return Card(title, caption, figures.slope(comparison, key=f"slope-{place}"))


COMBINED = (
    "Mean score of each method without NoisyTune (hollow) and with it (filled), over the seeds of which both are done. "
    "Line, and brackets: the fixed-n 95 % interval of the gain, of each line alone."
)


def _cards(evidence: Evidence, rows: list[SummaryRow], primary: list[SummaryRow]) -> list[Card]:
    """Every figure, in the page's order."""
    study, cards, lambdas = evidence.study, [], {c.noise_lambda for c in evidence.comparisons} - {None}
    known, told = [row for row in rows if row.n], [row for row in primary if row.n]
    combined = combinations(evidence)

    def named(task: dict[str, Any]) -> str:
        return f": {task['name']}" if len(study.tasks) > 1 else ""

    if known:
        cards.append(_forest_card(evidence, known))
    for i, task in enumerate(study.tasks):
        mine = [row for row in known if row.task == task["name"] and not row.pooled]
        if len(lambdas) > 1 and len(mine) > 1:
            caption = "Lines as above. Picking the highest point afterwards makes it look better than it is."
            svg = figures.lambda_curve(evidence, mine, key=f"lambda-{i}")
            cards.append(Card("How much noise" + named(task), caption, svg))
        both = [c for c in combined if c.task == task]
        if both:
            svg = figures.with_and_without(both, key=f"combined-{i}")
            cards.append(Card("Alone and with NoisyTune" + named(task), COMBINED, svg))
    cards += [_running_card(evidence, row, i, len(told) > 1) for i, row in enumerate(told)]
    cards += [_slope_card(evidence, c, i) for i, c in enumerate(evidence.comparisons) if c.pairs]
    for i, task in enumerate(study.tasks):
        trials = [r for r in evidence.trials.values() if r.task == task["name"] and r.loss_curve]
        if trials:
            caption = "Smoothed. Heavy: mean over seeds. Fine: each seed."
            svg = figures.loss_curves(trials, study.arms, key=f"loss-{i}")
            cards.append(Card("Training loss" + named(task), caption, svg))
    return cards


def _trial_lines(evidence: Evidence) -> list[dict[str, Any]]:
    lines = []
    for row in evidence.study.trials:
        record = evidence.trials.get(row["key"])
        score, seconds, status = "", "", "not done"
        if record:
            score = number(evidence.score(record)) + (" (undefined)" if evidence.undefined(record) else "")
            further = f"/{evidence.metrics[record.task]}"
            score += "".join(
                f" ({name.removesuffix(further)} {number(100 * value)})"
                for name, value in record.scores.items()
                if name.endswith(further)
            )
            seconds = f"{record.timing['train']:.1f}" if "train" in record.timing else ""
            status = record.status
        lines.append({**row, "score": score, "status": status, "seconds": seconds})
    return lines


def view(evidence: Evidence, *, drawn: bool) -> dict[str, Any]:
    """What the templates print.

    Args:
        evidence: of one study.
        drawn: whether to draw the figures too.
    """
    study, rows, primary = evidence.study, task_rows(evidence), primary_rows(evidence)
    told, whole = headline(primary), sentence(evidence, primary)
    lead = told.verdict.value.capitalize() if told else whole.split(":")[0]
    every = pooled_rows(evidence) + rows
    return {
        "study": study,
        "verdict": told.verdict.value if told else "none",
        "lead": lead,
        "rest": whole[len(lead) :].replace("λ = ", "λ\u00a0=\u00a0").replace("95 %", "95\u00a0%"),
        "notes": page_notes(evidence, primary),
        "done": evidence.done,
        "planned": evidence.planned,
        "complete": evidence.complete,
        "told": told,
        "numbers": _key_numbers(told) if told else [],
        "cards": _cards(evidence, every, primary) if drawn else [],
        "rows": every,
        "comparisons": comparisons_at_once(evidence),
        "item_rows": item_rows(evidence),
        "search": search_view(evidence, drawn=drawn),
        "trials": _trial_lines(evidence),
        "run": what_was_run(evidence),
        "smallest_p": smallest_p(told.n) if told else "",
        "number": number,
        "failures": failures,
        "points": points,
        "probability": probability,
        "scored_on": scored_on(study),
        "span": span,
    }
