"""The commands report and methods, and what every command shows of a finished study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noisytune._console import Console
from noisytune._text import terminal
from noisytune.cli._errors import FAILED
from noisytune.errors import NotFoundError, RunFolderError, require

if TYPE_CHECKING:
    from noisytune.records import StudyRecord, TrialRecord


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pages here. Default: into the run folder.")
    ] = None,
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
    for name in dict.fromkeys(study.name for study in studies.values()):
        show(run, {file: study for file, study in studies.items() if study.name == name}, out=out)


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
    folder: Path, studies: dict[str, StudyRecord], known: list[TrialRecord] | None = None, out: Path | None = None
) -> int:
    """Write the reports of one study, for each of its models and on all, and print what they say.

    Args:
        folder: the run folder.
        studies: by file name, all of one name.
        known: the finished trials, where they have been read already.
        out: where to write; None: into the run folder.

    Returns:
        how many trials of the study failed.
    """
    from noisytune.cli.study_display import print_summary
    from noisytune.lab.store import STUDY, Store, file_name
    from noisytune.report import write_overview, write_report

    results, failures = [], list(Store(folder).failures().values())
    place = _writable(out or folder)
    on_all = file_name(next(iter(studies.values())).name) if len(studies) > 1 else ""
    for file, study in studies.items():
        page = "report" if file == STUDY else file if len(studies) > 1 else file_name(study.name)
        if len(studies) > 1:
            console().print(f"\n{terminal(study.model['name'])}", style="bold")
        records = known or Store(folder).records(entry["key"] for entry in study.trials)
        written = write_report(place, study, records, page, failures, on_all) if place else None
        print_summary(console(), study, records, written, failures)
        results.append((study, records, page))
    if len(results) > 1 and place:
        overview = write_overview(place, results, on_all)
        console().print(f"\nReport on all models: {terminal(overview)}", soft_wrap=True)
    if not place:
        console().print(
            f"Note: {terminal(folder)} cannot be written: --out DIR writes the report elsewhere", soft_wrap=True
        )
    failed = {failure.key for failure in failures}
    return sum(entry["key"] in failed for study in studies.values() for entry in study.trials)


def _writable(folder: Path) -> Path | None:
    """The folder, made where it is missing; None where nothing may be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made ({error.strerror}); give another --out") from error
    return folder if os.access(folder, os.W_OK) else None


def show_run(folder: Path, studies: dict[str, StudyRecord], known: list[TrialRecord] | None = None) -> None:
    """`show` what a command has run.

    Raises:
        typer.Exit: with the code of a failure, where a trial failed.
    """
    if show(folder, studies, known):
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


def console() -> Console:
    """Where results are printed."""
    return Console()
