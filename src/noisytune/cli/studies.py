"""The commands run and reproduce: studies that a file describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noisytune.cli._options import (
    WHAT,
    DryRun,
    HowToRun,
    Json,
    OtherData,
    OtherTraining,
    Out,
    ReportTo,
    Tracker,
    option,
)
from noisytune.cli._output import console
from noisytune.cli._running import Running, stoppable
from noisytune.cli.reports import need, show_run
from noisytune.errors import ConfigError

if TYPE_CHECKING:
    from noisytune.lab.engines import Engine
    from noisytune.lab.studies.file import Changes


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="What to compare; see docs/studies.md.")],
    dry_run: DryRun = False,
    out: Out = None,
    *,
    running: HowToRun,
    report_to: ReportTo = None,
    as_json: Json = False,
) -> None:
    """Run the study that a file describes: any models, tasks, arms and seeds. Goes on after an interruption.

    Examples:
        noisytune run study.yaml --dry-run               # trials, FLOPs and time
        noisytune run study.yaml --out runs/mine --workers 4
    """
    from noisytune.lab.studies.file import Changes

    _run(study, Changes(), out, dry_run, running, report_to, as_json)


def reproduce(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A table or figure of the paper: table2, table3, figure2 to figure6.")
    ],
    models: Annotated[
        str, option(WHAT, "Fine-tune these instead of the paper's. all-MiniLM-L6-v2 is embedded.", "M[,M...]")
    ] = "",
    tasks: Annotated[str, option(WHAT, "Fine-tune on these instead of the paper's.", "T[,T...]")] = "",
    arm: Annotated[
        list[str] | None, option(WHAT, "Compare this arm instead of the paper's. May be repeated.", "ARM", "--arm")
    ] = None,
    seeds: Annotated[int | None, option(WHAT, "Run this many pairs. The paper has 5.", "N", min=1)] = None,
    show: Annotated[bool, option(WHAT, "Print the study's file, to copy and edit.", "", "--show")] = False,
    *,
    data: OtherData,
    training: OtherTraining,
    dry_run: DryRun = False,
    out: Out = None,
    running: HowToRun,
    report_to: ReportTo = None,
    as_json: Json = False,
) -> None:
    """Run a table or figure of the paper, whole or at a scale of your choice. Goes on after an interruption.

    Examples:
        noisytune reproduce table2 --dry-run           # trials, FLOPs and time
        noisytune reproduce figure6 --models all-MiniLM-L6-v2 --tasks topics --seeds 3
        noisytune reproduce figure5 --show             # a study to copy and edit
    """
    from noisytune.lab.studies.file import Changes, paper_study

    file = paper_study(study)
    if show:
        typer.echo(file.read_text(encoding="utf-8"), nl=False)
        return
    changes = Changes(
        models=tuple(_names(models)),
        tasks=tuple(_names(tasks)),
        arms=tuple(arm or ()),
        seeds=seeds,
        options=data,
        training=training,
    )
    _run(file, changes, out or Path("runs/paper"), dry_run, running, report_to, as_json)


def _run(
    file: Path,
    changes: Changes,
    out: Path | None,
    dry_run: bool,
    running: dict[str, Any],
    report_to: Tracker | None,
    as_json: bool,
) -> None:
    """Run the studies of a file, one for each model, in one run folder."""
    from noisytune.cli.study_display import StudyDisplay
    from noisytune.lab.store import Store, file_name
    from noisytune.lab.studies.file import read_studies
    from noisytune.lab.studies.run import run_study
    from noisytune.lab.trials.transformers_runner import TransformersRunner

    if dry_run and as_json:
        raise ConfigError("dry_run and json do not go together: its tables are for people")
    need("a study", "yaml")
    how = Running(**running)
    with stoppable() as stop, how.workplace() as engine:
        engine.start(1, TransformersRunner.warm_up)  # imports while the data is loaded
        if dry_run:
            _plan(file, changes, out, engine)
            return
        studies = read_studies(file, changes)
        name = studies[0].name
        folder = out or Path("runs") / file_name(name)
        for study in studies:
            with StudyDisplay(console(as_json)) as display:
                store, told = Store(folder, study.file_name), stop.watched(display.on_event)
                run_study(study, store, engine, told, None, report_to and report_to.value, rules=how.rules(stop))
            if stop.asked:
                break
    show_run(folder, Store(folder).studies(name), None, as_json)


def _plan(file: Path, changes: Changes, out: Path | None, engine: Engine) -> None:
    """Show what the studies of a file would cost, or what they are where that cannot be told."""
    from noisytune.cli.cost_display import print_costs
    from noisytune.cli.plan_display import print_plans
    from noisytune.lab.store import Store, file_name
    from noisytune.lab.studies.cost import cost_of
    from noisytune.lab.studies.plan import Plan, plans

    found = plans(file, changes)
    name = found[0].name
    folder = out or Path("runs") / file_name(name)
    planned = [one for one in found if isinstance(one, Plan)]
    if planned:
        print_plans(console(), planned)
        return
    studies = [one for one in found if not isinstance(one, Plan)]
    print_costs(console(), name, folder, [cost_of(study, Store(folder), engine, engine.workers) for study in studies])


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
