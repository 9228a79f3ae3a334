"""Does a study show what is required of it? Yes, no, or not decided, in a line for each arm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from noisytune.errors import ConfigError
from noisytune.records import StudyRecord, TrialRecord
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.summary import SummaryRow, primary_rows
from noisytune.report.page.wording import count, evidence_value, number, points, span
from noisytune.report.statistics.paired import Verdict

REQUIREMENTS = ("helped", "not-worse", "decided")


@dataclass(frozen=True)
class Gate:
    """One arm's answer."""

    arm: str
    answer: str
    """``yes``, ``no`` or ``undecided``."""
    why: str
    """In a sentence."""


def gate(study: StudyRecord, records: Iterable[TrialRecord], require: str, arm: str | None = None) -> list[Gate]:
    """One answer for each arm, on the rows that the study was run for. Looking again and adding seeds is allowed.

    ``helped``: the verdict is. ``not-worse``: the anytime-valid interval lies above minus the margin, or the verdict is
    helped; an arm that hurt, and may have by more than the margin, is worse. ``decided``: the verdict is not
    inconclusive.

    Args:
        study: the plan; its margin counts.
        records: finished trials in any order.
        require: one of `REQUIREMENTS`.
        arm: ask it of this one only.

    Raises:
        ConfigError: no such requirement or arm, an arm that is shown and not judged, or a study without arms.

    Example: at the head of `noisytune.report`.
    """
    if require not in REQUIREMENTS:
        raise ConfigError(f"require must be one of {', '.join(REQUIREMENTS)}, got {require!r}")
    if len(study.arms) < 2:
        raise ConfigError(f"the study has only the baseline, {study.arms[0]}: there is nothing to require")
    if arm is not None and arm not in study.arms[1:]:
        raise ConfigError(f"arm must be one of {', '.join(study.arms[1:])}, got {arm!r}")
    rows = [row for row in primary_rows(gather(study, records)) if arm in (None, row.arm)]
    if not rows:
        raise ConfigError(
            f"arm {arm or ', '.join(study.arms[1:])} is shown and not judged: its runs are among those from which the "
            "baseline's best is chosen; ask it of another arm"
        )
    return [Gate(row.arm, _answer(row, require, study.margin), _why(row, study.margin)) for row in rows]


def _answer(row: SummaryRow, require: str, margin: float) -> str:
    verdict = row.verdict
    if require == "decided":
        return "undecided" if verdict is Verdict.INCONCLUSIVE else "yes"
    if require == "helped":
        return {Verdict.HELPED: "yes", Verdict.INCONCLUSIVE: "undecided"}.get(verdict, "no")
    if not row.judged:
        return "undecided"
    if verdict is Verdict.HELPED or row.low >= -margin:
        return "yes"
    return "no" if verdict is Verdict.HURT or row.high < -margin else "undecided"


def _why(row: SummaryRow, margin: float) -> str:
    return (
        f"{row.arm}, {row.task}: {row.verdict.value} after {count(row.n, 'pair')}, difference "
        f"{number(row.difference, True)} points, e = {evidence_value(row.e)} of {evidence_value(row.e_needed)}, "
        f"anytime-valid 95 % {span(row.low, row.high)}, margin {points(margin)}"
    )
