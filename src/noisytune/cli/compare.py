"""The command compare."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from noisytune.cli._options import (
    OWN,
    WHAT,
    Arms,
    Data,
    HowToRun,
    Json,
    Margin,
    Model,
    Noise,
    Out,
    OwnScore,
    OwnTraining,
    ReportTo,
    Seeds,
    Task,
    Training,
    option,
)
from noisytune.cli._running import Running, stoppable
from noisytune.lab.studies import USUAL_SEEDS
from noisytune.lab.studies.compare import EQUAL_COMPUTE

if TYPE_CHECKING:
    from noisytune.records import StudyRecord, TrialRecord


def compare(
    model: Model = None,
    task: Task = "topics",
    arm: Arms = None,
    equal_compute: Annotated[bool, option(WHAT, EQUAL_COMPUTE, "", "--equal-compute", common=False)] = False,
    seeds: Seeds = USUAL_SEEDS,
    until_decided: Annotated[
        bool, option(WHAT, "Add seeds until every verdict is settled.", "", "--until-decided")
    ] = False,
    max_seeds: Annotated[int, option(WHAT, "Stop at this many with --until-decided.", "N", common=False, min=1)] = 50,
    margin: Margin = 1.0,
    *,
    noise: Noise,
    own: OwnTraining,
    scoring: OwnScore,
    higher_is_better: Annotated[
        bool, option(OWN, "Higher scores are better: the default.", "", "--higher-is-better", common=False)
    ] = False,
    no_rerun: Annotated[
        bool,
        option(OWN, "Do not run the baseline's first seed twice to see what seeds do.", "", "--no-rerun", common=False),
    ] = False,
    data: Data,
    training: Training,
    out: Out = None,
    running: HowToRun,
    report_to: ReportTo = None,
    as_json: Json = False,
) -> None:
    r"""Fine-tune a model on a task without and with NoisyTune, seed by seed, and report the difference.

    The same command goes on after an interruption; with more --seeds or strengths it extends a finished study.

    Examples:
        noisytune compare                              # the demo: needs no network
        noisytune compare --task reviews.csv --model roberta-base --until-decided
        noisytune compare --task glue/rte --arm "noisytune(0.1)" --arm recadam
        noisytune compare --command "python train.py {model} {seed} {out}" \
            --model ./bert --score eval_accuracy
    """
    from noisytune.cli._output import console
    from noisytune.cli.own_command import compare_command, refuse
    from noisytune.cli.reports import need, show_run
    from noisytune.cli.study_display import StudyDisplay
    from noisytune.lab import compare as run_comparison
    from noisytune.lab.store import STUDY
    from noisytune.lab.studies.compare import Noises, arms_for, arms_of
    from noisytune.lab.tasks import TaskOptions

    need("noisytune compare")
    noises = Noises.beside(arm or (), noise)
    arms = arms_of(*noises, *(arm or ()))
    options, how = TaskOptions(**data), Running(**running)
    if own or scoring:
        ours = {"task": task != "topics", "launcher": how.launcher, "equal_compute": equal_compute, **training}
        refuse(own, scoring, higher_is_better, ours | dict.fromkeys(options.given(data), True))
        compare_command(
            own,
            scoring,
            model,
            arms,
            max_seeds if until_decided else seeds,
            margin,
            out,
            how,
            until=partial(_decided, [arm.name for arm in arms]) if until_decided else None,
            rerun=not no_rerun,
            report_to=report_to and report_to.value,
            as_json=as_json,
        )
        return
    with stoppable() as stop, how.workplace() as engine, StudyDisplay(console(as_json)) as display:
        found = run_comparison(
            model,
            task,
            arms=arms,
            equal_compute=equal_compute,
            seeds=max_seeds if until_decided else seeds,
            training=training,
            options=options,
            margin=margin,
            until=partial(_decided, [arm.name for arm in arms_for(task.split(","), arms)]) if until_decided else None,
            out=out,
            engine=engine,
            on_event=stop.watched(display.on_event),
            report_to=report_to and report_to.value,
            rules=how.rules(stop),
        )
    show_run(found.folder, {STUDY: found.study}, found.records, as_json)


def _decided(arms: list[str], study: StudyRecord, records: list[TrialRecord]) -> bool:
    from noisytune.report import decided

    return decided(study, records, arms)
