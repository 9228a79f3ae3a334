"""The commands plan, work and status: a study that many processes run, on one machine or on many."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from noisytune._text import terminal
from noisytune.cli._options import RUN, HowToRun, Json, ReportTo, option
from noisytune.cli._output import console, print_json
from noisytune.cli._running import Running, stoppable
from noisytune.cli.reports import need
from noisytune.errors import ConfigError

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def plan(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="What to compare; see docs/studies.md.")],
    out: Annotated[Path, option(RUN, "Write the plan into this run folder.", "DIR")],
    as_json: Json = False,
) -> None:
    """Write a study's plan into a run folder and run nothing of it: noisytune work does, in any number of processes.

    Examples:
        noisytune plan study.yaml --out runs/mine
    """
    from noisytune.cli.study_display import StudyDisplay
    from noisytune.lab.engines import LocalEngine
    from noisytune.lab.studies.planned import plan as write_plan

    need("a study", "yaml")
    with LocalEngine(1) as engine, StudyDisplay(console(as_json)) as display:
        studies = write_plan(study, out, engine, display.on_event)
    if as_json:
        told = [{"name": one.name, "model": one.model.name, "planned": len(one.plan)} for one in studies]
        print_json("plan", {"run": str(out), "studies": told})
        return
    for one in studies:
        console().print(terminal(f"{one.name} on {one.model.name}: {len(one.plan):,} trials are planned in {out}"))
    console().print(f"Each of these runs what is missing:  noisytune work {terminal(out)}", soft_wrap=True)


def work(
    run: RunFolder,
    part: Annotated[
        str | None, option(RUN, "Run this fixed share of the pairs: 1/8 to 8/8 together are all.", "I/N")
    ] = None,
    claim: Annotated[bool, option(RUN, "Run whatever nobody else has claimed: the default.", "", "--claim")] = False,
    *,
    running: HowToRun,
    report_to: ReportTo = None,
) -> None:
    """Run whatever is missing of a planned study. Any number of these may run at a time, on any machines.

    Each leaves what others run to them, and ends when nothing is left to take. Afterwards: noisytune report RUN.

    Examples:
        noisytune work runs/mine                       # on as many machines as wanted
        noisytune work runs/mine --part 1/8            # in a job array
    """
    from noisytune.cli.study_display import StudyDisplay
    from noisytune.lab.store import Store
    from noisytune.lab.studies.planned import Part, planned
    from noisytune.lab.studies.planned import work as run_missing
    from noisytune.lab.trials.transformers_runner import TransformersRunner

    need("a study", "yaml")
    if part and claim:
        raise ConfigError("part and claim are two ways to share a study: give one of them")
    share, how = Part.parse(part) if part else None, Running(**running)
    failed = 0
    with stoppable() as stop, how.workplace() as engine:
        engine.start(1, TransformersRunner.warm_up)  # imports while the data is loaded
        for study in planned(run):
            store = Store(run, study.file_name)
            with StudyDisplay(console()) as display:
                told, rules = stop.watched(display.on_event), how.rules(stop, wait_for_others=False)
                failed += run_missing(study, store, engine, told, share, report_to and report_to.value, rules=rules)
            if stop.asked:
                break
    if failed:
        raise typer.Exit(1)


def status(
    run: RunFolder,
    watch: Annotated[bool, option(RUN, "Show it again and again, until nothing runs.", "", "--watch")] = False,
    as_json: Json = False,
) -> None:
    """Show how far a run folder is: done, running and by whom, failed and why, missing, and when it will be done.

    Examples:
        noisytune status runs/mine --watch
        noisytune status runs/mine --json
    """
    from rich.live import Live

    from noisytune.cli.status_display import status_text
    from noisytune.lab.studies.status import status_of

    out = console()
    if as_json:
        if watch:
            raise ConfigError("watch and json do not go together: call it again instead")
        print_json("status", {"studies": [one.told() for one in status_of(run)]})
        return
    if not watch or not out.is_terminal:
        out.print(status_text(status_of(run)))
        return
    with Live(status_text(found := status_of(run)), console=out, auto_refresh=False) as live:
        while any(one.running for one in found):
            time.sleep(EVERY)
            found = status_of(run)
            live.update(status_text(found), refresh=True)


EVERY = 2.0
"""Seconds between two looks."""
