"""The command explore."""

from __future__ import annotations

from typing import Annotated

from noisytune.cli._options import (
    WHAT,
    Data,
    ExploreTraining,
    HowToRun,
    Json,
    Margin,
    Model,
    Noise,
    Out,
    option,
)
from noisytune.cli._running import Running, stoppable
from noisytune.lab.studies import USUAL_SEEDS


def explore(
    model: Model = None,
    task: Annotated[
        str,
        option(
            WHAT,
            "Fine-tune on this: topics, replies, glue/NAME, xtreme/NAME or a FILE (CSV, TSV, JSONL, Parquet).",
            "TASK",
            "--task",
        ),
    ] = "topics",
    noise_seeds: Annotated[int, option(WHAT, "Draw this many noises for each seed.", "N", min=2)] = 32,
    keep: Annotated[int, option(WHAT, "Train this many of them as a whole.", "N", min=1)] = 4,
    screen: Annotated[
        str,
        option(
            WHAT,
            "Leave others out before training, or after short trainings. Default: the cheaper that is possible.",
            "untrained|short",
            common=False,
        ),
    ] = "auto",
    arm: Annotated[
        list[str] | None,
        option(WHAT, "Choose the noise of this arm, which has noisytune. May be repeated.", "ARM", "--arm"),
    ] = None,
    seeds: Annotated[
        int, option(WHAT, "Do all of it this often, each time with other noises.", "N", min=1)
    ] = USUAL_SEEDS,
    margin: Margin = 1.0,
    *,
    noise: Noise,
    data: Data,
    training: ExploreTraining,
    out: Out = None,
    running: HowToRun,
    as_json: Json = False,
) -> None:
    """Draw many noises, train the most promising ones, and compare with plain restarts that cost as much.

    A tenth of the training examples chooses; the verdict is on dev. The same command goes on after an interruption.

    Examples:
        noisytune explore --task reviews.csv --model roberta-base
        noisytune explore --noise-seeds 8 --keep 2 --seeds 3
    """
    from noisytune.cli._output import console
    from noisytune.cli.reports import need, show_run
    from noisytune.cli.study_display import StudyDisplay
    from noisytune.lab import explore as run_exploration
    from noisytune.lab.store import STUDY
    from noisytune.lab.studies.compare import Noises
    from noisytune.lab.tasks import TaskOptions

    need("noisytune explore")
    noises = Noises.beside(arm or (), noise)
    how = Running(**running)
    with stoppable() as stop, how.workplace() as engine, StudyDisplay(console(as_json)) as display:
        found = run_exploration(
            model,
            task,
            noise_seeds=noise_seeds,
            keep=keep,
            screen=screen,
            arms=(*noises, *(arm or ())),
            seeds=seeds,
            training=training,
            options=TaskOptions(**data),
            margin=margin,
            out=out,
            engine=engine,
            on_event=stop.watched(display.on_event),
            rules=how.rules(stop),
        )
    show_run(found.folder, {STUDY: found.study}, found.records, as_json)
