"""How is a result said in plain English? Numbers, the verdict's sentence, and what a reader should know beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

from noisytune._metrics import OWN, OWN_LOWER, direction
from noisytune.records import StudyRecord, TrialRecord
from noisytune.report.evidence.pairs import Evidence, gather
from noisytune.report.evidence.search import gain_by_chance, search_rows, seed_spread
from noisytune.report.evidence.summary import (
    SummaryRow,
    comparisons_at_once,
    primary_rows,
)
from noisytune.report.statistics.intervals import ALPHA
from noisytune.report.statistics.paired import Verdict
from noisytune.report.statistics.power import first_to_settle, selection_bias
from noisytune.report.statistics.practical import Chances
from noisytune.report.statistics.sign_flip import EXACT_UP_TO, MONTE_CARLO_FLIPS

MINUS, DASH = "\u2212", "\u2013"


def number(value: float, signed: bool = False) -> str:
    """Points with two decimals and a true minus sign; more digits where two would hide that it is not 0.

    >>> number(1.5, signed=True), number(0.004), number(float("inf"))
    ('+1.50', '0.004', '∞')
    """
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return ("+" if signed and value > 0 else "") + (MINUS if value < 0 else "") + "∞"
    text = f"{value:+.2f}"
    if float(text) == 0.0:
        text = f"{value:+.1g}" if abs(value) >= 1e-4 else "0.00"
    return (text if signed else text.lstrip("+")).replace("-", MINUS)


def fine(value: float, signed: bool = False) -> str:
    """A percentage that may be very small, three digits, with a true minus sign.

    >>> fine(0.0041234, signed=True)
    '+0.00412'
    """
    if not math.isfinite(value):
        return number(value, signed)
    return (f"{value:+.3g}" if signed else f"{value:.3g}").replace("-", MINUS)


def span(low: float, high: float) -> str:
    """An interval for a sentence.

    >>> span(0.1, 2.9)
    '+0.10 to +2.90'
    """
    return f"{number(low, True)} to {number(high, True)}" if math.isfinite(low) else "unbounded"


def evidence_value(e: float) -> str:
    """An e-value: three digits, and no more than matters.

    >>> evidence_value(1.0), evidence_value(23.456), evidence_value(3e7)
    ('1', '23.5', '> 10,000')
    """
    return "> 10,000" if e > 10_000 else f"{e:,.0f}" if e >= 100 else f"{e:.3g}"


def probability(p: float) -> str:
    """A p-value.

    >>> probability(0.0625), probability(0.00002)
    ('.0625', '< .001')
    """
    if p >= 0.9995 or p < 0.001:
        return "1" if p >= 0.9995 else "< .001"
    return f"{p:.3f}".lstrip("0") if p >= 0.1 else f"{p:.3g}".lstrip("0")


ENDED = {
    "collapsed": "collapsed",
    "diverged": "diverged",
    "untrained": "stayed untrained: no weight moved",
}
"""How a run ended that did not end well, by its status."""


def count(n: int, noun: str) -> str:
    """``1 pair``, ``2 pairs``, ``2 studies``."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


class _Runs(Protocol):
    """What tells how its runs ended."""

    @property
    def failed(self) -> dict[str, int]: ...


def failures(row: _Runs) -> str:
    """`` (1 collapsed, 2 diverged)``, for the number of pairs; nothing where every run ended well."""
    return f" ({', '.join(f'{n} {status}' for status, n in row.failed.items())})" if row.failed else ""


def scored_on(study: StudyRecord) -> str:
    """Which epoch the scores are of and what chose it: one sentence for every place that shows scores.

    Args:
        study: the plan.

    Example: at the head of `noisytune.report`.
    """
    if "paired_by" in study.training:
        metrics = " and ".join(dict.fromkeys(task["metric_label"] for task in study.tasks))
        return f"The scores are {metrics} of {study.training['scores']}, paired by {study.training['paired_by']}."
    if all(task["kind"] in (OWN, OWN_LOWER) for task in study.tasks):
        named = " and ".join(dict.fromkeys(task["metric_label"] for task in study.tasks))
        return f"The scores are {named} as the training itself gave them, in points."
    select, protocol = (
        study.training.get(key, default) for key, default in (("select", "last"), ("protocol", "paper"))
    )
    if select == "last":
        which = "the last epoch's"
    elif protocol == "clean":
        which = "those of the epoch that is best on a tenth of the training examples, which was not trained on"
    else:
        which = "those of the epoch that is best on dev itself, which flatters every arm"
    parts = list(dict.fromkeys((task.get("facts") or {}).get("scored", "dev") for task in study.tasks))
    said = f"The scores on {' and '.join(parts)} are {which} (select {select}, protocol {protocol})."
    return f"{said} {chosen_by(study.search)}" if study.search else said


def chosen_by(search: dict[str, Any]) -> str:
    """How each arm got its settings, in one sentence."""
    chosen, n = search["chosen_on"], search["trained_on"]
    if search["protocol"] == "clean":
        where = f"{count(chosen, 'training example')} held out from the other {n:,}; the winners train on all"
    else:
        where = f"{count(chosen, 'dev example')}, the same that are reported, which flatters every arm"
    return (
        f"Each arm has the settings that were best in {count(search['budget'], 'trial')} of its own "
        f"(sampler {search['sampler']}, protocol {search['protocol']}), chosen on {where}."
    )


def settings_text(settings: dict[str, float]) -> str:
    """Settings of a search for a sentence.

    Args:
        settings: names and values.

    >>> settings_text({"learning_rate": 2e-05, "batch_size": 16, "noise_lambda": 0.1})
    'learning rate 2e-05, batch size 16, λ 0.1'
    """
    return ", ".join(
        f"{'λ' if name == 'noise_lambda' else name.replace('_', ' ')} {value:g}" for name, value in settings.items()
    )


def by_chance(evidence: Evidence) -> str:
    """What the best scores of the searches owe to their number alone."""
    search, rows = evidence.study.search or {}, search_rows(evidence)
    n, spread = search["budget"], seed_spread(rows)
    if n == 1:
        return "One trial of each arm: nothing was selected."
    said = (
        f"Selection alone: the best of {n} trials that all do the same is {number(selection_bias(n))} standard "
        "deviations better than their mean (expected maximum of normal draws). "
    )
    if math.isnan(spread):
        return said + "Two seeds of the winners tell how many points that is."
    fewer = search["chosen_on"] < evidence.study.tasks[0]["dev_size"]  # and they scatter the more
    about = "at least about" if fewer else "about"
    said += (
        f"Between seeds the winners' scores on dev have a standard deviation of {number(spread)} points, so the best "
        f"score of a search looks better than it is by {about} {number(gain_by_chance(rows, n))} points. "
        "The verdict is of other runs, with fresh seeds"
    )
    if search["protocol"] == "clean":
        return said + ", on dev examples that chose nothing."
    return said + ", but on the dev examples that chose the settings: the protocol clean keeps them apart."


def points(value: float) -> str:
    """``±1 point``, ``±0.5 points``: a margin."""
    return f"±{value:g} {'point' if value == 1 else 'points'}"


def headline(rows: list[SummaryRow]) -> SummaryRow | None:
    """The row that the sentence tells: what helped most surely, else hurt, else both; else the highest mean."""
    known = [row for row in rows if row.n > 0]
    for verdict in (Verdict.HELPED, Verdict.HURT, Verdict.MIXED):
        of_it = [row for row in known if row.verdict is verdict]
        if of_it:
            return max(of_it, key=lambda row: row.e)
    return max(known, key=lambda row: row.difference) if known else None


def _metric(evidence: Evidence, row: SummaryRow) -> str:
    labels = {t["metric_label"] for t in evidence.study.tasks if row.pooled or t["name"] == row.task}
    return labels.pop() if len(labels) == 1 else "the score"


def lower_is_better(evidence: Evidence, row: SummaryRow) -> bool:
    """Whether a row is of tasks whose scores are better the lower they are."""
    own = [task for task in evidence.study.tasks if row.pooled or task["name"] == row.task]
    return all(direction(task["kind"], task["metric"]) < 0 for task in own)


def _change(evidence: Evidence, row: SummaryRow) -> str:
    better, worse = ("was better in", "was worse in") if lower_is_better(evidence, row) else ("raised", "lowered")
    metric, where = _metric(evidence, row), f"over {row.task}" if row.pooled else f"on {row.task}"
    if row.verdict is Verdict.HELPED:
        return f"{row.label} {better} {metric} {where} by {number(row.difference)} points"
    if row.verdict is Verdict.HURT:
        return f"{row.label} {worse} {metric} {where} by {number(-row.difference)} points"
    if row.verdict is Verdict.MIXED:
        return (
            f"{row.label} was better in {metric} {where} in {row.wins} of {count(row.n, _unit(row))} and worse in "
            f"{row.losses}, yet the mean difference is {number(row.difference, True)} points"
        )
    baseline = evidence.study.arms[0]
    return (
        f"{row.label} differed from {baseline} in {metric} {where} by {number(row.difference, True)} points on average"
    )


def _unit(row: SummaryRow) -> str:
    return "seed" if row.pooled else "pair"


def _limits(row: SummaryRow, margin: float) -> str:
    """What follows the interval."""
    pairs = count(row.n, _unit(row))
    if row.verdict is Verdict.EQUIVALENT:
        return f", within the margin of {points(margin)} that counts as no difference"
    if row.verdict is not Verdict.INCONCLUSIVE:
        return ""
    if not row.judged:
        return "; no pair in which both runs ended well" + (" on every task" if row.pooled else "")
    if math.isfinite(row.detectable):
        return f"; {pairs} could have detected a difference of {number(row.detectable)} points"
    first = first_to_settle(row.e_needed)
    if row.n >= first:
        return f"; {pairs} that all tie show no difference of any size"
    return f"; {pairs} cannot settle a difference of any size, {first} can"


def _others(rows: list[SummaryRow], told: SummaryRow) -> str:
    others = [row for row in rows if row is not told]
    if not others:
        return ""
    parts = [f"{n} {word}" for word in Verdict if (n := sum(row.verdict is word for row in others))]
    if len(parts) == 1:
        which = "other arm" if len(others) == 1 else f"other {len(others)} arms"
        return f" The {which}: {others[0].verdict}."
    return f" Of the other {len(others)} arms: {', '.join(parts)}."


def sentence(evidence: Evidence, rows: list[SummaryRow]) -> str:
    """The verdict on the primary rows in one sentence, and a short second one where there are other arms."""
    told = headline(rows)
    if len(evidence.study.arms) < 2:
        return f"Nothing to compare: the study has only the baseline, {evidence.study.arms[0]}."
    if told is None:
        every = " on every task" if any(c.pairs for c in evidence.comparisons) else ""
        return (
            f"No verdict yet: {evidence.done:,} of {count(evidence.planned, 'trial')} are done, "
            f"and no seed has both its baseline and its arm{every}."
        )
    several = sum(row.n > 0 for row in rows) > 1
    pick = ", the highest of the arms," if several and told.verdict is Verdict.INCONCLUSIVE else ""
    change = _change(evidence, told)
    if pick:
        change = change.replace(told.label, told.label + pick, 1)
    first = ["no difference established"] * (told.verdict is Verdict.INCONCLUSIVE)
    first += ["the search chose no noise (λ = 0)"] * (told.arm in without_noise(evidence))
    opening = f"{' and '.join(first)}. " if first else ""
    several_at_once = comparisons_at_once(evidence, over_tasks=told.pooled) > 1
    kind = "simultaneous anytime-valid" if several_at_once else "anytime-valid"
    shown = "" if told.verdict in (Verdict.EQUIVALENT, Verdict.INCONCLUSIVE) else f"e = {evidence_value(told.e)}, "
    return (
        f"{told.verdict.value.capitalize()} after {count(told.n, _unit(told))}: {opening}{change} "
        f"({shown}{kind} 95 % interval {span(told.low, told.high)}){_limits(told, evidence.study.margin)}."
        + _others(rows, told)
    )


def verdict_sentence(study: StudyRecord, records: Iterable[TrialRecord]) -> str:
    """The verdict in plain English, honest about what this number of pairs can show.

    Args:
        study: the plan.
        records: finished trials in any order.

    Example: at the head of `noisytune.report`.
    """
    evidence = gather(study, records)
    return sentence(evidence, primary_rows(evidence))


def without_noise(evidence: Evidence) -> dict[str, str]:
    """The arms for which the search chose λ = 0, each as the user wrote it."""
    return {
        row.arm: row.asked for row in search_rows(evidence) if row.winner.settings.get("noise_lambda", math.nan) == 0.0
    }


def method_line(comparisons: int = 1, pooled: int = 0) -> str:
    """Which number a verdict rests on, and why: one sentence for every page.

    Args:
        comparisons: judged at once on it.
        pooled: those over all tasks, which are judged together apart from these.
    """
    at_once = f", for all {comparisons} comparisons together" if comparisons > 1 else ""
    if pooled:
        own = "the one" if pooled == 1 else f"all {pooled}"
        at_once = (
            f", for all {comparisons} comparisons on single tasks together, and as rarely for {own} over all tasks"
        )
    return (
        "Helped, hurt and mixed rest on e, the evidence in the signs of the differences: by chance alone it reaches "
        f"what is needed in at most 5 % of studies{at_once}, whatever the distribution and however often one looks. "
        "Equivalent rests on the anytime-valid interval, for roughly normal differences."
    )


def chances_text(found: Chances) -> str:
    """Probabilities of a practical difference.

    >>> chances_text(Chances(0.004, 0.9, 0.096))
    '< .01, .90, .10'
    """
    if math.isnan(found.within):
        return DASH
    shares = (found.below, found.within, found.above)
    return ", ".join("< .01" if p < 0.005 else "> .99" if p > 0.995 else f"{p:.2f}".lstrip("0") for p in shares)


def smallest_p(pairs: int, flips: int = MONTE_CARLO_FLIPS) -> str:
    """What a sign-flip test of this many pairs, and so many random flips, can reach, for the page's explanation."""
    if pairs < 1:
        return ""
    least = 2.0 ** (1 - pairs) if pairs <= EXACT_UP_TO else 1 / (1 + flips)
    if least > ALPHA:
        return f"{count(pairs, 'pair')} cannot reach p < .05 by sign flip: the smallest possible p is {least:.4g}."
    exact = "exact" if pairs <= EXACT_UP_TO else "by random flips"
    return f"With {count(pairs, 'pair')} the test is {exact}, and the smallest possible p is {least:.2g}."
