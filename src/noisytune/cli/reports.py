"""The commands report and methods, and what every command shows of a finished study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noisytune._text import terminal
from noisytune.cli._errors import FAILED
from noisytune.cli._options import Json
from noisytune.cli._output import console, print_reports
from noisytune.errors import NotFoundError, RunFolderError, require

if TYPE_CHECKING:
    from noisytune.records import StudyRecord, TrialRecord


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pages here. Default: into the run folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Render a run folder's reports again. Needs no torch.

    Examples:
        noisytune report runs/mine
        noisytune report runs/mine --out public
    """
    from noisytune.lab.store import Store

    if not run.is_dir():
        raise NotFoundError(f"{run}: there is no such folder")
    studies = Store(run).studies()
    if not studies:
        raise RunFolderError(f"{run} holds no study: give a folder that noisytune compare, run or reproduce wrote")
    told = []
    for name in dict.fromkeys(study.name for study in studies.values()):
        told += show(run, {file: study for file, study in studies.items() if study.name == name}, None, out, as_json)[1]
    if as_json:
        print_reports(told)


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="Everything about one.")] = None,
) -> None:
    """Show the methods that an --arm can have: what they do, their settings, cost and source.

    Examples:
        noisytune methods
        noisytune methods recadam
    """
    from noisytune.cli.methods_display import print_method, print_methods
    from noisytune.methods import method_class

    if name is None:
        print_methods(console())
    else:
        print_method(console(), method_class(name))


def show(
    folder: Path,
    studies: dict[str, StudyRecord],
    known: list[TrialRecord] | None = None,
    out: Path | None = None,
    as_json: bool = False,
) -> tuple[int, list[dict[str, Any]]]:
    """Write the reports of one study, for each of its models and on all, and print what they say.

    Args:
        folder: the run folder.
        studies: by file name, all of one name.
        known: the finished trials, where they have been read already.
        out: where to write; None: into the run folder.
        as_json: print nothing for people.

    Returns:
        how many trials of the study failed, and with ``as_json`` what each model's ``report.json`` holds.

    Raises:
        RunFolderError: ``out`` cannot be written.
    """
    from noisytune.cli.study_display import print_summary
    from noisytune.lab.store import STUDY, Store, file_name
    from noisytune.report import report_json, write_overview, write_report

    results, told, failures = [], [], list(Store(folder).failures().values())
    people = console(as_json)
    place = writable(out or folder)
    if out and not place:
        raise RunFolderError(f"{out} cannot be written; give another --out")
    on_all = file_name(next(iter(studies.values())).name) if len(studies) > 1 else ""
    for file, study in studies.items():
        page = "report" if file == STUDY else file if len(studies) > 1 else file_name(study.name)
        records = known or Store(folder).records(entry["key"] for entry in study.trials)
        written = write_report(place, study, records, page, failures, on_all) if place else None
        if as_json:
            told.append(report_json(study, records, failures))
        else:
            if len(studies) > 1:
                people.print(f"\n{terminal(study.model['name'])}", style="bold")
            print_summary(people, study, records, written, failures)
        results.append((study, records, page))
    if len(results) > 1 and place:
        overview = write_overview(place, results, on_all)
        people.print(f"\nReport on all models: {terminal(overview)}", soft_wrap=True)
    if not place:
        people.print(
            f"Note: {terminal(folder)} cannot be written: --out DIR writes the report elsewhere", soft_wrap=True
        )
    failed = {failure.key for failure in failures}
    return sum(entry["key"] in failed for study in studies.values() for entry in study.trials), told


def writable(folder: Path) -> Path | None:
    """The folder, made where it is missing; None where nothing may be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made ({error.strerror}); give another --out") from error
    return folder if os.access(folder, os.W_OK) else None


def show_run(folder: Path, studies: dict[str, StudyRecord], known: list[TrialRecord] | None, as_json: bool) -> None:
    """`show` what a command has run, or print it as JSON.

    Raises:
        typer.Exit: with the code of a failure, where a trial failed.
    """
    failed, told = show(folder, studies, known, as_json=as_json)
    if as_json:
        print_reports(told)
    if failed:
        raise typer.Exit(FAILED)


def need(what: str, *more: str) -> None:
    """See that the libraries of a study and its report are there.

    Args:
        what: who needs them, for the message.
        more: further ones of the same extra.

    Raises:
        MissingExtraError: one is not.
    """
    for library in ("transformers", "scipy", "matplotlib", "jinja2", *more):
        require(library, extra="lab", needed_for=what)
