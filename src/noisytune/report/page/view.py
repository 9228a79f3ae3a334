"""What stands on the page? Everything the templates print, computed, with no markup but the figures' SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noisytune._metrics import METRICS, OWN, OWN_LOWER, RIGHT
from noisytune.report.evidence import items
from noisytune.report.evidence.choices import choice_rows
from noisytune.report.evidence.classes import class_rows
from noisytune.report.evidence.compute import arm_costs
from noisytune.report.evidence.norms import movements
from noisytune.report.evidence.pairs import Comparison, Evidence
from noisytune.report.evidence.ranks import rank_table
from noisytune.report.evidence.summary import (
    SummaryRow,
    comparisons_at_once,
    pooled_rows,
    primary_rows,
    task_rows,
)
from noisytune.report.page.cards import all_cards, first_card, is_lone, paper_cards, undrawn
from noisytune.report.page.facts import what_was_run
from noisytune.report.page.languages import languages_view
from noisytune.report.page.notes import next_step, page_notes
from noisytune.report.page.scores import score_table
from noisytune.report.page.search_view import search_view
from noisytune.report.page.trial_groups import first_seeds, trial_groups
from noisytune.report.page.wording import (
    chances_text,
    count,
    evidence_value,
    failures,
    fine,
    headline,
    method_line,
    number,
    points,
    probability,
    scored_on,
    sentence,
    smallest_p,
    span,
)

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class ItemRow:
    """Item level of one comparison."""

    task: str
    arm: str
    bootstrap: items.Bootstrap | None
    why_not: str
    """Why there is no bootstrap, else empty."""
    seeds: tuple[tuple[int, items.McNemar], ...]
    groups: int = 0
    """Groups of examples that hang together; 0: each example stands for itself."""


def item_rows(evidence: Evidence) -> list[ItemRow]:
    """McNemar per seed and the bootstrap, from the predictions of both runs of each pair."""
    rows = []
    for c in first_seeds(evidence):
        found = [(p, items.items_of(p.baseline), items.items_of(p.arm)) for p in c.pairs]
        usable = [
            (p, before, after)
            for p, before, after in found
            if len(before) == len(after) > 0
            and p.arm.references == p.baseline.references == c.pairs[0].baseline.references
        ]
        if not usable:
            continue
        pairs, befores, afters = zip(*usable, strict=True)
        kind, key = items.read_as(c.task)
        tests, right, groups = [], RIGHT.get(kind), items.groups_of(pairs[0].baseline)
        if right and all(np.isfinite(right(one)).all() for one in (*befores, *afters)):
            tests = [(p.seed, items.mcnemar(right(before), right(after), groups)) for p, before, after in usable]
        bootstrap, why_not = None, _why_no_bootstrap(c, len(pairs))
        in_groups = 0 if groups is None else np.unique(groups).size
        if not why_not:
            bootstrap = items.hierarchical_bootstrap(
                befores, afters, METRICS[kind][key], seed=BOOTSTRAP_SEED, groups=groups
            )
            if abs(bootstrap.mean - float(c.differences.mean())) > 0.01:
                bootstrap, why_not = None, "the metric recomputed from the predictions differs from the recorded one"
                if any(evidence.undefined(r) for p in pairs for r in (p.baseline, p.arm)):
                    why_not = "a run without a defined score cannot be recomputed"
        rows.append(ItemRow(c.task["name"], c.arm, bootstrap, why_not, tuple(tests), in_groups))
    return rows


def _why_no_bootstrap(comparison: Comparison, usable: int) -> str:
    kind, metric = items.read_as(comparison.task)
    if metric not in METRICS.get(kind, {}):
        return f"{metric} cannot be recomputed from the predictions"
    if usable < len(comparison.pairs):
        return f"only {usable} of {count(len(comparison.pairs), 'pair')} have predictions on the same examples"
    return "needs two pairs" if usable < 2 else ""


def _key_numbers(row: SummaryRow) -> list[tuple[str, str, str]]:
    unit = "seeds" if row.pooled else "pairs"
    done = f"of {row.planned} planned" if row.n < row.planned else "as planned"
    bounded = "points; for roughly normal differences"
    if not math.isfinite(row.low):
        bounded = "too few pairs, or too many equal differences, to bound it"
    enough = f"{evidence_value(row.e_needed)} needed to show a difference"
    means = f"points, from {number(row.baseline_mean)} to {number(row.arm_mean)}"
    return [
        ("Mean difference", number(row.difference, True), means),
        ("Evidence e", evidence_value(row.e), enough),
        ("Anytime-valid 95 %", span(row.low, row.high), bounded),
        ("Wins · ties · losses", f"{row.wins} · {row.ties} · {row.losses}", f"in {row.n} {unit}, {done}"),
    ]


def _trial_lines(evidence: Evidence) -> list[dict[str, Any]]:
    lines = []
    for row in evidence.study.trials:
        record = evidence.trials.get(row["key"])
        score, seconds, status = "", "", "failed" if row["key"] in evidence.failed else "not done"
        if record:
            score = number(evidence.score(record)) + (" (undefined)" if evidence.undefined(record) else "")
            metric = evidence.metrics[record.task]
            score += "".join(
                f" ({split} {number(100 * found['scores'][metric])})"
                for split, found in record.evaluations.items()
                if split not in record.primary and metric in found["scores"]
            )
            seconds = f"{record.timing['train']:.1f}" if "train" in record.timing else ""
            status = record.status
        lines.append({**row, "score": score, "status": status, "seconds": seconds})
    return lines


FAILURES = 20
"""Whose last words are shown; more are counted."""
LINES = 12
"""Of the last words of each."""


def _failed(evidence: Evidence) -> list[dict[str, Any]]:
    """Trials that have no record, why, and what was heard of them last."""
    plan = {row["key"]: row for row in evidence.study.trials}
    return [
        {**plan[key], "reason": failure.reason, "last_words": failure.last_words.splitlines()[-LINES:]}
        for key, failure in list(evidence.failed.items())[:FAILURES]
    ]


def view(evidence: Evidence, *, drawn: bool, overview: str = "") -> dict[str, Any]:
    """What the templates print.

    Args:
        evidence: of one study.
        drawn: whether to draw the figures too.
        overview: the name of the page on all models, where there is one.
    """
    study, rows, primary = evidence.study, task_rows(evidence), primary_rows(evidence)
    told, whole = headline(primary), sentence(evidence, primary)
    lead = told.verdict.value.capitalize() if told else whole.split(":")[0]
    table = score_table([evidence])
    every, many = pooled_rows(evidence) + rows, not evidence.few
    cards = all_cards(evidence, every, primary) if drawn else []
    return {
        "study": study,
        "up": overview,
        "judged": "paired_by" in study.training,
        "own": all(task["kind"] in (OWN, OWN_LOWER) for task in study.tasks),
        "verdict": told.verdict.value if told else "none",
        "lead": lead,
        "rest": whole[len(lead) :].replace("λ = ", "λ\u00a0=\u00a0").replace("95 %", "95\u00a0%"),
        "next": next_step(evidence, primary),
        "notes": page_notes(evidence, primary),
        "done": evidence.done,
        "planned": evidence.planned,
        "complete": evidence.complete,
        "told": told,
        "numbers": _key_numbers(told) if told else [],
        "first": first_card(evidence, primary) if drawn and told else None,
        "cards": cards,
        "lone": is_lone(cards),
        "undrawn": undrawn(evidence),
        "rows": every,
        "scores_table": table if len(study.tasks) > 1 or table.with_paper else None,
        "languages": languages_view(evidence),
        "moved": movements(evidence),
        "chances": chances_text,
        "item_rows": item_rows(evidence),
        "class_rows": class_rows(evidence),
        "search": search_view(evidence, drawn=drawn),
        "costs": arm_costs(evidence),
        "choices": choice_rows(evidence),
        "trials": [] if many else _trial_lines(evidence),
        "failed": _failed(evidence),
        "failed_more": max(0, len(evidence.failed) - FAILURES),
        "trial_groups": trial_groups(evidence) if many else [],
        "sampled": len(first_seeds(evidence)[0].pairs) if first_seeds(evidence) is not evidence.comparisons else 0,
        "run": what_was_run(evidence),
        "smallest_p": smallest_p(told.n) if told else "",
        "method_line": method_line(comparisons_at_once(evidence), len(evidence.begun) if len(study.tasks) > 1 else 0),
        "count": count,
        "ranks": rank_table(evidence),
        "evidence_value": evidence_value,
        "number": number,
        "fine": fine,
        "failures": failures,
        "points": points,
        "probability": probability,
        "scored_on": scored_on(study),
        "span": span,
    }


def overview(models: Sequence[tuple[Evidence, str]], *, drawn: bool) -> dict[str, Any]:
    """What the templates of a page on several models print.

    Args:
        models: the evidence of each model's study, and the name of its own page.
        drawn: whether to draw the figures too.
    """
    cards = [
        card
        for i, (evidence, _) in enumerate(models)
        for card in (paper_cards(evidence, model=True, key=f"m{i}-") if drawn else ())
    ]
    rows = [(evidence.study.model["name"], row) for evidence, _ in models for row in primary_rows(evidence)]
    parts = []
    for evidence, page in models:
        primary = primary_rows(evidence)
        told, whole = headline(primary), sentence(evidence, primary)
        parts.append(
            {
                "model": evidence.study.model["name"],
                "page": page,
                "verdict": told.verdict.value if told else "none",
                "sentence": whole,
                "done": evidence.done,
                "planned": evidence.planned,
            }
        )
    return {
        "study": models[0][0].study,
        "tasks": list(dict.fromkeys(task["name"] for evidence, _ in models for task in evidence.study.tasks)),
        "models": parts,
        "done": sum(evidence.done for evidence, _ in models),
        "planned": sum(evidence.planned for evidence, _ in models),
        "scores_table": score_table([evidence for evidence, _ in models]),
        "rows": rows,
        "cards": cards,
        "lone": is_lone(cards),
        "method_line": method_line(),
        "evidence_value": evidence_value,
        "number": number,
        "span": span,
        "probability": probability,
    }
