"""What `noisytune compare` does with a command of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisytune.errors import ConfigError
from noisytune.lab.trials.arm import Arm

if TYPE_CHECKING:
    from noisytune.cli._running import Running
    from noisytune.lab.studies.run import Until


def refuse(own: dict[str, Any], scoring: dict[str, Any], higher_is_better: bool, ours: dict[str, Any]) -> None:
    """See that options of a command go with one and with each other, and those of our own training do not.

    Args:
        own: as for `compare_command`.
        scoring: as for `compare_command`.
        higher_is_better: whether that was said.
        ours: values of options that say how our own trainer trains, by name.

    Raises:
        ConfigError: they do not.
    """
    if "command" not in own:
        raise ConfigError("command must be given with options of a training of your own: it is what runs")
    if higher_is_better and scoring.get("lower_is_better"):
        raise ConfigError("higher_is_better and lower_is_better say the opposite: give one of them")
    if "score" not in scoring:
        raise ConfigError(
            "score must be given with a command: the name of the number to compare, such as eval_accuracy"
        )
    given = next((name for name, value in ours.items() if value), None)
    if given:
        raise ConfigError(f"{given} must be left out: a command trains by itself; write it into the command")


def compare_command(
    own: dict[str, Any],
    scoring: dict[str, Any],
    model: str | None,
    arms: tuple[Arm, ...],
    seeds: int,
    margin: float,
    out: Path | None,
    how: Running,
    *,
    until: Until | None,
    rerun: bool,
    report_to: str | None,
    as_json: bool,
) -> None:
    """Run a command seed by seed without and with noise in its checkpoint, and report the difference.

    Args:
        own: fields of `noisytune.lab.trials.command.Command`.
        scoring: fields of `noisytune.lab.trials.scores.Scoring`.
        model: a directory or an id on the Hub.
        arms: the baseline first.
        seeds: how many pairs; with ``until`` at most.
        margin: points that do not matter.
        out: the run folder; None: one of its own.
        how: workers and rules.
        until: asked between seeds.
        rerun: whether the baseline's first seed is run twice.
        report_to: a tracker.
        as_json: print the report as JSON, and everything else on standard error.
    """
    from noisytune.cli._output import console
    from noisytune.cli._running import stoppable
    from noisytune.cli.reports import show_run
    from noisytune.cli.study_display import StudyDisplay
    from noisytune.lab.store import STUDY, Store, run_folder
    from noisytune.lab.studies.compare import seeds_of
    from noisytune.lab.studies.own import OwnStudy, OwnTask, own_model, run_own
    from noisytune.lab.trials.command import Command, CommandRunner
    from noisytune.lab.trials.scores import Scoring

    if "score" not in scoring:
        raise ConfigError(
            "score must be given with a command: the name of the number to compare, such as eval_accuracy"
        )
    if model is None:
        raise ConfigError(
            "model must be given with a command: the weights that it starts from, a directory or an id on the Hub"
        )
    command, read = Command(**own), Scoring(**scoring)
    study = OwnStudy(
        name=command.name,
        model=own_model(model),
        tasks=(OwnTask.of(command.name, read),),
        arms=arms,
        seeds=seeds_of(seeds),
        margin=margin,
        own=command.told(),
        scoring=read,
    )
    store = Store(
        out or run_folder(study.name, study.model.name, [study.model.digest, study.tasks[0].digest, study.own])
    )
    runner = CommandRunner.of(study.model.path, command, read, store.folder)
    with stoppable() as stop, how.workplace() as engine, StudyDisplay(console(as_json)) as display:
        told = stop.watched(display.on_event)
        rules = how.rules(stop)
        record = run_own(study, store, engine, told, runner, until=until, rerun=rerun, report_to=report_to, rules=rules)
    show_run(store.folder, {STUDY: record}, store.records(entry["key"] for entry in record.trials), as_json)
