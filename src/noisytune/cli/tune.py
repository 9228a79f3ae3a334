"""The command tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from noisytune.cli._options import (
    RUN,
    WHAT,
    Arms,
    Data,
    HowToRun,
    Json,
    Margin,
    Model,
    Out,
    TuneTraining,
    Values,
    option,
)
from noisytune.cli._running import Running, stoppable
from noisytune.lab.studies import USUAL_SEEDS

if TYPE_CHECKING:
    from noisytune.lab.studies.tune import Tuning


def tune(
    model: Model = None,
    task: Annotated[
        str,
        option(
            WHAT,
            "Fine-tune on this: topics, replies, glue/NAME or a FILE (CSV, TSV, JSONL, Parquet).",
            "TASK",
            "--task",
        ),
    ] = "topics",
    arm: Arms = None,
    budget: Annotated[int, option(WHAT, "Try this many settings of each arm, the baseline included.", "N", min=1)] = 20,
    sampler: Annotated[str, option(WHAT, "Pick settings this way.", "random|grid|tpe", common=False)] = "random",
    protocol: Annotated[
        str, option(WHAT, "Choose settings on a tenth of train (clean) or on dev (paper).", "paper|clean", common=False)
    ] = "clean",
    seeds: Annotated[int, option(WHAT, "Run each arm's winner on this many fresh seeds.", "N", min=1)] = USUAL_SEEDS,
    margin: Margin = 1.0,
    *,
    values: Values,
    data: Data,
    training: TuneTraining,
    storage: Annotated[
        str | None,
        option(RUN, "Keep the search in this Optuna storage. Default: SQLite in the run folder.", "URL", common=False),
    ] = None,
    out: Out = None,
    running: HowToRun,
    as_json: Json = False,
) -> None:
    """Search each arm's settings with the same number of trials, then compare the winners on fresh seeds.

    The same command goes on after an interruption; with more --budget or --seeds it extends a finished search.

    Examples:
        noisytune tune --task reviews.csv --model roberta-base --budget 20
        noisytune tune --arm noisytune --arm recadam --learning-rate 1e-5,2e-5
    """
    from noisytune._pretrained import Model as Pretrained
    from noisytune.cli._output import console
    from noisytune.cli.reports import need, show_run
    from noisytune.cli.study_display import StudyDisplay
    from noisytune.errors import ConfigError, require
    from noisytune.lab.store import STUDY, Store
    from noisytune.lab.studies.search import Space
    from noisytune.lab.studies.tune import Tuning
    from noisytune.lab.studies.tune import tune as run_search
    from noisytune.lab.tasks import BENCHMARKS, GLUE, TaskOptions, load_task, trained_as
    from noisytune.lab.trials.settings import TrainingSettings
    from noisytune.lab.trials.transformers_runner import TransformersRunner

    need("noisytune tune")
    require("optuna", extra="tune", needed_for="noisytune tune")
    if task in BENCHMARKS:
        example = f"{task}/{'rte' if task == GLUE else 'xnli'}"
        raise ConfigError(f"tune searches one task at a time: choose one of {task.upper()}'s, for example {example}")
    space, options = Space(**values), TaskOptions(**data)
    settings = TrainingSettings(**training, protocol=protocol)  # type: ignore[arg-type]
    how = Running(**running)
    with stoppable() as stop, how.workplace() as engine, StudyDisplay(console(as_json)) as display:
        engine.start(1, TransformersRunner.warm_up)  # imports while the data is loaded
        loaded = trained_as(load_task(task, options), {}, training)
        tuning = Tuning(
            name=f"{loaded.name}, tuned",
            model=Pretrained.find(model),
            task=loaded,
            arms=tuple(arm or ["noisytune"]),
            space=space,
            budget=budget,
            sampler=sampler,
            seeds=seeds,
            training=settings,
            margin=margin,
        )
        store = Store(out or _default_folder(tuning))
        found = run_search(tuning, store, engine, stop.watched(display.on_event), storage, rules=how.rules(stop))
    show_run(store.folder, {STUDY: found}, None, as_json)


def _default_folder(tuning: Tuning) -> Path:
    """The same model, data, space and training give the same folder."""
    from noisytune.lab.store import run_folder

    shared = [
        tuning.model.digest,
        tuning.task.digest,
        tuning.space.axes(noise=True),
        tuning.sampler,
        tuning.training.to_dict(),
    ]
    return run_folder(f"tune-{tuning.task.name}", tuning.model.name, shared)
