"""What should one be careful about beside the verdict, and what is to be done next? One sentence or two each."""

from __future__ import annotations

from collections.abc import Iterable

from noisytune._metrics import direction
from noisytune.records import FailureRecord, StudyRecord, TrialRecord
from noisytune.report.evidence.choices import choice_rows
from noisytune.report.evidence.compute import arm_costs
from noisytune.report.evidence.forgetting import forgetting
from noisytune.report.evidence.pairs import Evidence, gather
from noisytune.report.evidence.summary import (
    SummaryRow,
    comparisons_at_once,
    differences,
    members,
    pooled_rows,
    primary_rows,
    task_rows,
)
from noisytune.report.page.wording import (
    ENDED,
    by_chance,
    count,
    evidence_value,
    headline,
    number,
    points,
    span,
    without_noise,
)
from noisytune.report.statistics.intervals import ALPHA
from noisytune.report.statistics.paired import Verdict
from noisytune.report.statistics.power import pairs_needed, selection_bias
from noisytune.report.statistics.shape import has_outlier

LISTED = 5
"""Comparisons that a note names; more are counted."""


def _oddities(evidence: Evidence) -> list[str]:
    notes = []
    for status, ended in ENDED.items():
        odd = [record for record in evidence.trials.values() if record.status == status]
        if odd:
            by_arm = [f"{sum(r.arm == arm for r in odd)} of {arm}" for arm in evidence.study.arms]
            listed = ", ".join(text for text in by_arm if not text.startswith("0 "))
            notes.append(f"{count(len(odd), 'run')} {ended} ({listed}); none is left out.")
    lower = {t["metric_label"]: t["metric"] for t in evidence.study.tasks if direction(t["kind"], t["metric"]) < 0}
    for label, metric in lower.items():
        unit = "; a point is 0.01 nats, about 1 % of the perplexity" * (metric == "nll")
        notes.append(
            f"Of {label} less is better: differences are the baseline's minus the arm's, so + is a gain{unit}."
        )
    for one in forgetting(evidence):
        after = ", ".join(f"{number(score)} ({arm})" for arm, score in one.after.items())
        notes.append(
            f"A text that was not trained on ({one.task}, {one.split}): {number(one.before)} points of nats per token "
            f"before training, {after} after it; more is forgetting."
        )
    missing = sum(evidence.undefined(record) for record in evidence.trials.values())
    if missing:
        lowest = [f"{number(100 * low)} ({name})" for name, low in evidence.worst.items() if low]
        value = f"the worst score of the study, {' and '.join(lowest)}" if lowest else "0"
        notes.append(
            f"{count(missing, 'run')} had no defined score (a diverged run, or a correlation of constant predictions): "
            f"counted as {value}."
        )
    if not all(comparison.is_bounded for comparison in evidence.comparisons):
        notes.append(
            "A loss that nobody knows may be of any size: where one is missing, no interval bounds the difference."
        )
    applied = (facts for record in evidence.trials.values() for facts in record.applied.values())
    told = dict.fromkeys(notice for facts in applied for notice in facts.get("notices", ()))
    return notes + [f"{notice[:1].upper()}{notice[1:]}." for notice in told]


def _not_normal(evidence: Evidence, rows: Iterable[SummaryRow]) -> list[str]:
    """Where differences are plainly not normal: one sentence for each way."""
    seen: dict[str, list[str]] = {}
    for row in rows:
        if any(p.baseline.status != p.arm.status for c in members(evidence, row) for p in c.pairs):
            how = "one run of a pair collapsed, diverged or stayed untrained and the other did not"
        elif has_outlier(differences(evidence, row)):
            how = "a difference lies far from all others"
        else:
            continue
        seen.setdefault(how, []).append(f"{row.arm} {'over' if row.pooled else 'on'} {row.task}")
    return [
        f"{_listed(named)}: {how}. The anytime-valid interval is for roughly normal differences and may be off; "
        "helped, hurt and mixed do not rest on it."
        for how, named in seen.items()
    ]


def _listed(named: list[str]) -> str:
    return f"{', '.join(named[:LISTED])}{f' and {len(named) - LISTED} more' * (len(named) > LISTED)}"


def _other_by_interval(evidence: Evidence) -> list[str]:
    """Where the interval alone would have said something else: one sentence for each change of words."""
    changed: dict[tuple[Verdict, Verdict], list[str]] = {}
    for row in (*pooled_rows(evidence), *task_rows(evidence)):
        if row.verdict is not row.by_interval:
            where = f"over {row.task}" if row.pooled else f"on {row.task}"
            said = f"{row.arm} {where} (e = {evidence_value(row.e)} of {evidence_value(row.e_needed)})"
            changed.setdefault((row.verdict, row.by_interval), []).append(said)
    return [
        f"{_listed(named)}: {verdict.value}, "
        f"where the interval alone, which takes the differences for normal, would say {other.value}."
        for (verdict, other), named in changed.items()
    ]


def _cautions(evidence: Evidence, rows: list[SummaryRow]) -> list[str]:
    notes = [by_chance(evidence)] if evidence.study.search else []
    notes += [
        f"The search chose no noise (λ = 0) for {asked}: its runs differ from the baseline's in other settings only."
        for asked in without_noise(evidence).values()
    ]
    notes += _costs(evidence) + _choices(evidence)
    notes += _not_normal(evidence, rows)
    notes += _other_by_interval(evidence)
    for row in task_rows(evidence):
        task = next(t for t in evidence.study.tasks if t["name"] == row.task)
        share = task.get("majority")
        if row.n and share is not None and task["metric"] == "accuracy" and row.baseline_mean <= 100 * share + 0.5:
            notes.append(
                f"The baseline on {row.task} hardly beats the majority class ({number(100 * share)} %): "
                "differences between runs that learned nothing say little."
            )
    reruns = ((task.get("facts") or {}).get("rerun") or {} for task in evidence.study.tasks)
    notes += [f"{rerun['found']}." for rerun in reruns if rerun.get("floor")]
    notes += _without_spread(task_rows(evidence))
    arms = 1 + len(evidence.begun)
    if arms > 2:
        notes.append(
            f"The best of {arms} settings (the baseline is one) looks better by about {selection_bias(arms):.2f} "
            "standard errors even where none does anything. The verdicts allow for the number of arms; "
            "the highest mean does not."
        )
    return list(dict.fromkeys(notes))


def _costs(evidence: Evidence) -> list[str]:
    """One sentence an arm that reads more tokens than the baseline, unless it is there to be compared with."""
    every = arm_costs(evidence)
    beside = {one.beside for one in every}
    notes = []
    for one in every:
        if one.passes < 1 or one.arm in beside:
            continue
        said = f"{one.arm} reads {number(one.passes)} times the tokens of {evidence.study.arms[0]}"
        if one.difference and one.difference.n:
            found = one.difference
            interval = span(found.anytime.low, found.anytime.high)
            notes.append(
                f"{said}; beside {one.beside}, which reads as many, it gains {number(found.mean, True)} points "
                f"(anytime-valid 95 % {interval}, {count(found.n, 'seed')})."
            )
        elif not one.beside:
            notes.append(f"{said}: its gain may be that of a longer training, which --equal-compute shows.")
    return notes


def _choices(evidence: Evidence) -> list[str]:
    """What choosing gave, one sentence an arm that is the best of several."""
    return [
        f"{one.arm}: the chosen ones score {number(one.chosen_by)} on what chose them and {number(one.score)} on dev, "
        f"where all {one.trained} that were trained score {number(one.mean)} on average: choosing gained "
        f"{number(one.gain, True)} points, of {number(one.highest, True)} that the best of so many has by chance."
        for one in choice_rows(evidence)
        if one.trained > 1
    ]


def _without_spread(rows: Iterable[SummaryRow]) -> list[str]:
    """One sentence an arm that did the same to every pair of a task."""
    tasks: dict[str, list[str]] = {}
    for row in rows:
        if row.n > 1 and row.sd == 0.0:
            tasks.setdefault(row.arm, []).append(row.task)
    return [
        f"All differences of {arm} on {', '.join(named)} are equal: they show no spread, so no interval is drawn from "
        "them."
        for arm, named in tasks.items()
    ]


def next_step(evidence: Evidence, rows: list[SummaryRow]) -> str:
    """What to do now: a sentence or two."""
    told, judged = headline(rows), "paired_by" in evidence.study.training
    if not judged and (evidence.failed or not evidence.complete):
        return "Run the same command: it goes on where the study is, and finished trials are kept."
    if told is None:
        return "Run the study with an arm beside the baseline." if len(evidence.study.arms) < 2 else ""
    if told.verdict is not Verdict.INCONCLUSIVE:
        return _AFTER[told.verdict]
    more = (
        "Judge the scores of more seeds." if judged else "Run the same study with more seeds: finished trials are kept."
    )
    margin, alpha = evidence.study.margin, ALPHA / comparisons_at_once(evidence, over_tasks=told.pooled)
    needed = pairs_needed(told.sd, margin, alpha, most=2000) if margin > 0 and told.sd > 0 else None
    if needed and needed > told.n and told.judged:
        unit = "seed" if told.pooled else "pair"
        more += f" At this spread about {count(needed, unit)} narrow the interval to {points(margin)}."
    return more


_AFTER = {
    Verdict.HELPED: "Use it here. Another model, task or training set is another question.",
    Verdict.HURT: "Leave it out here, or compare a weaker setting.",
    Verdict.EQUIVALENT: "Leave it out here: what it changes does not matter.",
    Verdict.MIXED: "Look at the pairs that went the other way before you use it.",
}
"""What to do once a verdict is reached."""


def _failures(evidence: Evidence) -> list[str]:
    """That trials are missing because they failed, and why the first of them did."""
    first = next(iter(evidence.failed.values()), None)
    if first is None:
        return []
    counted = f"{len(evidence.failed)} of {count(evidence.planned, 'trial')} failed, and no pair has them"
    reasons = len({failure.reason for failure in evidence.failed.values()})
    more = f" ({reasons - 1} other reasons)" if reasons > 2 else ""
    return [f"{counted}: the same command tries them again. {first.reason}{more}"]


def notes(study: StudyRecord, records: Iterable[TrialRecord], failures: Iterable[FailureRecord] = ()) -> list[str]:
    """What to be careful about beside the verdict, one sentence or two each: failed runs, doubtful intervals.

    Args:
        study: the plan.
        records: finished trials in any order.
        failures: of trials that are not finished.

    Example: at the head of `noisytune.report`.
    """
    return cautions(gather(study, records, failures))


def cautions(evidence: Evidence) -> list[str]:
    """See `notes`."""
    return _failures(evidence) + _oddities(evidence) + _cautions(evidence, primary_rows(evidence))


def page_notes(evidence: Evidence, rows: list[SummaryRow]) -> list[str]:
    """The page's notes: how far the study is, and what `notes` tells."""
    progress = []
    if not evidence.complete:
        progress = [f"The study is not complete: {evidence.done} of {count(evidence.planned, 'trial')} are done."]
    return progress + _failures(evidence) + _oddities(evidence) + _cautions(evidence, rows)
