"""The command judge: the report from results that exist."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noisytune._text import terminal
from noisytune.cli._options import WHAT, Json, Margin, option
from noisytune.cli._output import console, print_reports
from noisytune.errors import ConfigError, RunFolderError, require

if TYPE_CHECKING:
    from noisytune.lab.studies.judged import Built

COLUMNS = "Which column says what"


class Unit(StrEnum):
    """How scores are written."""

    AUTO = "auto"
    FRACTIONS = "fractions"
    POINTS = "points"


class Unpaired(StrEnum):
    """What to do about runs without a partner."""

    REFUSE = "refuse"
    DROP = "drop"
    MATCH = "match"


Column = str | None


def judge(
    scores: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|ARM=RESULTS ...",
            help="A CSV, TSV, Parquet or JSONL file of scores; or, for each arm, folders of lm-evaluation-harness or "
            "Inspect: plain=out/a noisy=out/b. Several of an arm are its seeds.",
        ),
    ],
    baseline: Annotated[
        str | None, option(WHAT, "Compare with this arm. Default: plain or baseline, else the first.", "ARM")
    ] = None,
    metric: Annotated[str | None, option(WHAT, "Judge this metric only. Default: each, apart.", "NAME")] = None,
    margin: Margin = 1.0,
    score_unit: Annotated[
        Unit, option(WHAT, "Scores are fractions (0.71) or points (71). auto: points if one is beyond 1.", "UNIT")
    ] = Unit.AUTO,
    lower_is_better: Annotated[bool, option(WHAT, "A loss, not a score.", "", "--lower-is-better")] = False,
    unpaired: Annotated[
        Unpaired,
        option(WHAT, "Runs that one arm lacks: refuse, drop, or match runs in their order.", "WHAT"),
    ] = Unpaired.REFUSE,
    seed_column: Annotated[Column, option(COLUMNS, "The seed, or run, that pairs share.", "NAME", common=False)] = None,
    arm_column: Annotated[
        Column, option(COLUMNS, "The arm. Without one, each arm has a column.", "NAME", common=False)
    ] = None,
    score_column: Annotated[Column, option(COLUMNS, "The score.", "NAME", common=False)] = None,
    task_column: Annotated[Column, option(COLUMNS, "The task, of several.", "NAME", common=False)] = None,
    item_column: Annotated[
        Column, option(COLUMNS, "The example, of scores example by example.", "NAME", common=False)
    ] = None,
    group_column: Annotated[
        Column, option(COLUMNS, "What examples that hang together share: a document, a speaker.", "NAME", common=False)
    ] = None,
    out: Annotated[Path | None, option(WHAT, "Write the report here. Default: runs/judge-NAME.", "DIR")] = None,
    as_json: Json = False,
) -> None:
    """Judge scores that exist, from any training: the same report, without training anything. Needs no torch.

    Examples:
        noisytune judge scores.csv
        noisytune judge scores.parquet --baseline plain --metric f1 --margin 0.5
        noisytune judge plain=evals/a plain=evals/b noisy=evals/c noisy=evals/d
    """
    from noisytune.cli.reports import writable
    from noisytune.cli.study_display import print_summary
    from noisytune.lab.store import file_name
    from noisytune.report import report_json, write_report

    for library in ("scipy", "matplotlib", "jinja2"):
        require(library, extra="report", needed_for="noisytune judge")
    columns = {
        "seed": seed_column,
        "arm": arm_column,
        "score": score_column,
        "task": task_column,
        "item": item_column,
        "group": group_column,
    }
    name, found = judged(
        scores,
        {role: given for role, given in columns.items() if given is not None},
        baseline=baseline,
        metric=metric,
        margin=margin,
        unit=score_unit.value,
        lower_is_better=lower_is_better,
        unpaired=unpaired.value,
    )
    folder = out or Path("runs") / f"judge-{file_name(name)}"
    if not writable(folder):
        raise RunFolderError(f"{folder} cannot be written; give another --out")
    told, pages = [], set[str]()
    for study, records in found:
        page = "report" if len(found) == 1 else file_name(study.name)
        while page.casefold() in pages:  # some file systems take capitals for small letters
            page += "-2"
        pages.add(page.casefold())
        written = write_report(folder, study, records, page)
        if as_json:
            told.append(report_json(study, records))
        else:
            print_summary(console(), study, records, written)
    if as_json:
        print_reports(told)


def judged(scores: list[str], columns: dict[str, str], **how: Any) -> tuple[str, list[Built]]:
    """The studies of what was given on the command line, and what to call them.

    Args:
        scores: a file, or ``ARM=RESULTS`` for each run.
        columns: that the user names, by what they say.
        how: see `noisytune.lab.studies.judged.Reading`.
    """
    from noisytune.lab.studies.harness import read_results
    from noisytune.lab.studies.judged import Reading, studies_of
    from noisytune.lab.studies.scores import read_scores

    given = [one.partition("=") for one in scores]
    if len(scores) == 1 and (not given[0][1] or Path(scores[0]).exists()):
        file = Path(scores[0])
        return file.stem, studies_of(read_scores(file, columns), file.name, Reading(**how))
    odd = next(
        (one for one, (arm, equals, place) in zip(scores, given, strict=True) if not (arm and equals and place)), ""
    )
    if odd:
        raise ConfigError(f"{terminal(odd)}: give one file of scores, or ARM=RESULTS for each arm")
    if columns:
        raise ConfigError(f"{next(iter(columns))}_column goes with a file of scores")
    arms, done = Counter(arm for arm, _, _ in given), Counter[str]()
    found = []
    for arm, _, place in given:
        found += read_results(Path(place), arm, str(done[arm]) if max(arms.values()) > 1 else "")
        done[arm] += 1
    name = "-".join(arms)
    return name, studies_of(found, name, Reading(**how))
