"""What does a study show, for a program? The content of ``report.json``, an interface: see docs/judge.md."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from noisytune.records import FailureRecord, StudyRecord, TrialRecord
from noisytune.report.evidence.pairs import Evidence, gather
from noisytune.report.evidence.summary import SummaryRow, pooled_rows, primary_rows, task_rows
from noisytune.report.page.notes import cautions
from noisytune.report.page.wording import headline, sentence
from noisytune.report.statistics.paired import Verdict

SCHEMA, VERSION = "noisytune.report", 1
"""Readers check both. A field that is added leaves the version as it is; one that changes or goes raises it."""


def report_json(
    study: StudyRecord, records: Iterable[TrialRecord], failures: Iterable[FailureRecord] = ()
) -> dict[str, Any]:
    """The report as plain JSON values; numbers that are not finite are None.

    Args:
        study: the plan.
        records: finished trials in any order.
        failures: of trials that are not finished.

    Example: at the head of `noisytune.report`.
    """
    return told(gather(study, records, failures))


def told(evidence: Evidence) -> dict[str, Any]:
    """See `report_json`."""
    study = evidence.study
    primary = primary_rows(evidence)
    first = headline(primary)
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "study": study.name,
        "model": study.model["name"],
        "baseline": study.arms[0],
        "margin": study.margin,
        "trials_planned": evidence.planned,
        "trials_done": evidence.done,
        "trials_failed": len(evidence.failed),
        "verdict": first.verdict.value if first else None,
        "arm": first.arm if first else None,
        "decided": bool(primary) and all(row.verdict is not Verdict.INCONCLUSIVE for row in primary),
        "sentence": sentence(evidence, primary),
        "notes": cautions(evidence),
        "comparisons": [_comparison(row, row in primary) for row in (*pooled_rows(evidence), *task_rows(evidence))],
    }


def json_text(found: dict[str, Any]) -> str:
    """As a file has it."""
    return json.dumps(found, allow_nan=False, indent=1) + "\n"


def _comparison(row: SummaryRow, is_primary: bool) -> dict[str, Any]:
    return {
        "task": row.task,
        "arm": row.arm,
        "primary": is_primary,
        "pooled": row.pooled,
        "verdict": row.verdict.value,
        "verdict_by_interval": row.by_interval.value,
        "pairs": row.n,
        "pairs_planned": row.planned,
        "baseline": _finite(row.baseline_mean),
        "score": _finite(row.arm_mean),
        "difference": _finite(row.difference),
        "sd": _finite(row.sd),
        "interquartile_mean": _finite(row.iqm),
        "e": _finite(row.e),
        "e_needed": row.e_needed,
        "anytime_low": _finite(row.low),
        "anytime_high": _finite(row.high),
        "fixed_low": _finite(row.fixed_low),
        "fixed_high": _finite(row.fixed_high),
        "wins": row.wins,
        "ties": row.ties,
        "losses": row.losses,
        "p": row.p,
        "p_holm": row.p_holm,
        "detectable": _finite(row.detectable),
        "probability_below_margin": _finite(row.chances.below),
        "probability_within_margin": _finite(row.chances.within),
        "probability_above_margin": _finite(row.chances.above),
        "failed": row.failed,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
