"""What does a study show, in words and numbers for a terminal? Computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from noisytune.records import FailureRecord, StudyRecord, TrialRecord
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.summary import SummaryRow, pooled_rows, primary_rows, task_rows
from noisytune.report.page.notes import cautions
from noisytune.report.page.scores import beside_paper, score_table
from noisytune.report.page.wording import scored_on, sentence


@dataclass(frozen=True)
class Findings:
    """One study's."""

    rows: list[SummaryRow]
    """As `noisytune.report.summary_rows` gives them."""
    verdict: str
    """As `noisytune.report.verdict_sentence`."""
    scored_on: str
    """As `noisytune.report.scored_on`."""
    notes: list[str]
    """As `noisytune.report.notes`."""
    beside_paper: list[tuple[str, ...]]
    """As `noisytune.report.page.scores.beside_paper`."""


def findings(study: StudyRecord, records: Iterable[TrialRecord], failures: Iterable[FailureRecord] = ()) -> Findings:
    """All of a study at once, in the time that its rows alone take.

    Args:
        study: the plan.
        records: finished trials in any order.
        failures: of trials that are not finished.

    Example: at the head of `noisytune.report`.
    """
    evidence = gather(study, records, failures)
    rows, primary = task_rows(evidence) + pooled_rows(evidence), primary_rows(evidence)
    beside = beside_paper(score_table([evidence]))
    return Findings(rows, sentence(evidence, primary), scored_on(study), cautions(evidence), beside)
