"""What the terminal shows of a run folder's progress."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from noisytune._text import terminal
from noisytune.cli.cost_display import duration
from noisytune.lab.studies.status import StudyStatus

SHOWN = 20
"""Trials of a list; more are counted."""
LINES = 3
"""Of the last words of a trial that failed."""


def status_text(found: Sequence[StudyStatus]) -> Text:
    """A paragraph for each study: one line of numbers, what runs, what failed."""
    return Text("\n\n".join("\n".join(map(terminal, _lines(one))) for one in found))


def _lines(one: StudyStatus) -> list[str]:
    counts = [f"{one.done:,} of {one.planned:,} trials done", f"{len(one.running):,} running"]
    counts += [f"{len(one.failed):,} failed"] * bool(one.failed) + [f"{one.missing:,} missing"] * bool(one.missing)
    lines = [f"{one.name} on {one.model}: {', '.join(counts)}", _when(one)]
    for running in one.running[:SHOWN]:
        heard = f", not heard of for {duration(running.claim.silent)}" if running.claim.silent > 60 else ""
        lines.append(f"  {running.label}: {running.claim.holder} since {running.claim.since}{heard}")
    lines += _more(len(one.running))
    if one.abandoned:
        lines.append(f"  {one.abandoned:,} were left by processes that have ended: any noisytune work takes them over")
    for failed in one.failed[:SHOWN]:
        lines.append(f"  failed: {failed.failure.reason}")
        lines += [f"    {line}" for line in failed.failure.last_words.splitlines()[-LINES:]]
    return lines + _more(len(one.failed))


def _more(number: int) -> list[str]:
    return [f"  and {number - SHOWN:,} more"] if number > SHOWN else []


def _when(one: StudyStatus) -> str:
    if one.done == one.planned:
        return "  complete"
    if not one.running:
        return "  nothing runs: the command that ran the study, or noisytune work, goes on"
    if one.seconds_left is None:
        return "  no trial is finished yet: when it will be done is not known"
    return f"  done in about {duration(one.seconds_left)}, if as many run as now"
