"""The command gate: an exit code for CI and for loops of agents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noisytune._text import terminal
from noisytune.cli._options import WHAT, Json, finite, option
from noisytune.cli._output import console, print_reports
from noisytune.cli.judge import Unit, judged
from noisytune.errors import ConfigError, RunFolderError
from noisytune.errors import require as need

if TYPE_CHECKING:
    from noisytune.records import FailureRecord, StudyRecord, TrialRecord

CODES = {"yes": 0, "no": 1, "undecided": 3}
"""Exit codes; 2 is wrong usage, as everywhere."""


class Requirement(StrEnum):
    """What is asked of an arm."""

    HELPED = "helped"
    NOT_WORSE = "not-worse"
    DECIDED = "decided"


def gate(
    run: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run folder, or a file of scores as for judge.")],
    require: Annotated[Requirement, option(WHAT, "What must hold: helped, not-worse or decided.", "WHAT")],
    margin: Annotated[
        float | None,
        option(
            WHAT, "Points that are no difference. Default: the study's; of a file 1.", "POINTS", min=0, callback=finite
        ),
    ] = None,
    baseline: Annotated[
        str | None, option(WHAT, "A file's baseline. Default: plain or baseline, else the first arm.", "ARM")
    ] = None,
    arm: Annotated[str | None, option(WHAT, "Ask it of this arm. Default: of every arm.", "ARM", "--arm")] = None,
    score_unit: Annotated[
        Unit,
        option(WHAT, "A file's scores are fractions (0.71) or points (71); auto: points if one is beyond 1.", "UNIT"),
    ] = Unit.AUTO,
    lower_is_better: Annotated[bool, option(WHAT, "A file's scores are losses.", "", "--lower-is-better")] = False,
    as_json: Json = False,
) -> None:
    """Say by the exit code whether a study shows what is required: 0 yes, 1 no, 3 not decided yet.

    It may be asked after every seed: what holds by chance alone is said in 5 % of studies at most. Needs no torch.

    Examples:
        noisytune gate runs/nightly --require not-worse --margin 0.5
        noisytune gate scores.csv --require helped --arm noisy
    """
    from noisytune.report import gate as asked
    from noisytune.report import report_json

    answers, told = [], []
    how = {"baseline": baseline, "unit": score_unit.value, "lower_is_better": lower_is_better}
    for study, records, failures in _studies(run, how):
        one = study if margin is None else replace(study, margin=margin)
        found = asked(one, records, require.value, arm)
        answers += [each.answer for each in found]
        if as_json:
            gated = [{"arm": each.arm, "answer": each.answer, "why": each.why} for each in found]
            told.append(report_json(one, records, failures) | {"gate": {"require": require.value, "answers": gated}})
            continue
        for each in found:
            console().print(terminal(f"{require.value}: {each.answer}. {each.why}"), soft_wrap=True)
    if as_json:
        print_reports(told)
    code = CODES[next(answer for answer in ("no", "undecided", "yes") if answer in answers)]
    if code:
        raise typer.Exit(code)


def _studies(run: Path, how: dict[str, Any]) -> Iterator[tuple[StudyRecord, list[TrialRecord], list[FailureRecord]]]:
    """Every study of a run folder, or of a file of scores, which are taken so."""
    for library in ("scipy", "matplotlib", "jinja2"):
        need(library, extra="report", needed_for="noisytune gate")
    if run.is_file():
        for study, records in judged([str(run)], {}, **how)[1]:
            yield study, records, []
        return
    if how != {"baseline": None, "unit": "auto", "lower_is_better": False}:
        raise ConfigError(f"{run} is no file of scores: a run folder knows its unit, its baseline and what is better")
    from noisytune.lab.studies.export import read_run

    found = read_run(run)
    if not found:
        raise RunFolderError(f"{run} holds no study")
    yield from found
