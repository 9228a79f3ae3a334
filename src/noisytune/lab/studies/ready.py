"""What comes before the trials of a study: notices, a look at every arm, and what all trials of a task share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from noisytune.errors import DamagedRecordError
from noisytune.lab.engines import Engine, JobFailed
from noisytune.lab.store import TrialStore
from noisytune.lab.studies.events import Event
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.events import Notice, TrialEvent
from noisytune.lab.trials.jobs import CheckJob, PrepareJob
from noisytune.lab.trials.runner import Runner, Warming
from noisytune.lab.trials.settings import MAY_BE_REFUSED
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

ROWS, FRAME = 40, 4000
"""Bytes that a trial keeps of an example, all arrays together, and of itself."""


def about_room(folder: Path, missing: Sequence[Trial], finished: Sequence[TrialRecord]) -> str:
    """That the disk has less room than the missing trials will take; nothing where it has enough, or nobody knows.

    Args:
        folder: the run folder.
        missing: trials to run.
        finished: some that were run, as far as there are any: by them a trial's size is guessed, else by its data.
    """
    try:
        free = shutil.disk_usage(folder).free
        sizes = [
            sum(file.stat().st_size for file in (folder / "trials").glob(f"{record.key}.*")) for record in finished[:20]
        ]
    except OSError:
        return ""
    guessed = (FRAME + ROWS * int(trial.settings["task"].get("dev_size", 0)) for trial in missing)
    needed = len(missing) * sum(sizes) / len(sizes) if sizes else sum(guessed)
    if needed <= free:
        return ""
    return (
        f"{folder}: its disk has {free / 1e6:,.0f} MB free, and the {len(missing):,} trials to run take about "
        f"{needed / 1e6:,.0f} MB: make room first; finished trials are kept"
    )


def say_notices(study: Study, of_folder: Iterable[str], on_event: Callable[[Event], None]) -> None:
    """Say what the user should know before anything is trained.

    Args:
        study: what is said of its model and its data.
        of_folder: what is said of the run folder; empty texts are left out.
        on_event: told of the notices.
    """
    for text in filter(None, (*of_folder, *study.notices)):
        on_event(Notice(text))


def set_damaged_aside(store: TrialStore, keys: Iterable[str]) -> list[str]:
    """Rename records that are not what was written, so that their trials are run again.

    Args:
        store: the run folder, which is locked.
        keys: of trials, finished or not.

    Returns:
        what the user should know, a line each.
    """
    notices = []
    for key in keys:
        try:
            if store.has(key):
                store.read(key)
        except DamagedRecordError as error:
            notices.append(f"{error}; the record is kept as {store.set_aside(key).name}")
    return notices


def to_check(study: Study, missing: Sequence[Trial]) -> list[tuple[Trial, tuple[tuple[dict[str, Any], ...], ...]]]:
    """What may be impossible: a trial of each kind of task, whose head is its own, and of each training that a machine
    or a model may not allow; with the methods of the arms that are trained so.

    Args:
        study: what to compare.
        missing: trials that are to be run.
    """
    arms = {arm.name: arm.methods for arm in study.arms}
    found: dict[Any, tuple[Trial, dict[str, Any]]] = {}
    for trial in missing:
        training = study.training_of(trial)
        settings = training.settings["training"]
        asked = tuple((name, settings[name]) for name in MAY_BE_REFUSED if name in settings)
        _, methods = found.setdefault((training.settings["task"]["kind"], asked), (training, {}))
        if arms[trial.arm]:
            methods[trial.arm] = arms[trial.arm]
    return [(trial, tuple(methods.values())) for (_, asked), (trial, methods) in found.items() if methods or asked]


def start(engine: Engine, runner: Runner, trials: int) -> None:
    """Start workers, no more than there are trials to run; they import what a trial needs."""
    engine.start(trials, runner.warm_up if isinstance(runner, Warming) else None)


def get_ready(
    study: Study,
    runner: Runner,
    engine: Engine,
    missing: Sequence[Trial],
    on_message: Callable[[TrialEvent], None],
    *,
    arms: bool = True,
) -> None:
    """See that every arm is possible, before anything is trained, and do what the trials of a task share.

    Both are jobs for workers that are started for the trials, too, and do them next.

    Args:
        study: what to compare.
        runner: how trials are carried out.
        engine: where it is done.
        missing: trials that are to be run.
        on_message: told of notices.
        arms: whether to look at them; not where a plan has done so.

    Raises:
        NoisyTuneError: an arm, or a task, is not possible.
    """
    start(engine, runner, len(missing))
    checks = [CheckJob(trial, runner, methods) for trial, methods in to_check(study, missing)] if arms else []

    def told(message: TrialEvent | JobFailed | None) -> None:
        if isinstance(message, JobFailed):
            raise message.error
        if message is not None:
            on_message(message)

    wanted = {trial.task for trial in missing}
    tasks = [task for task in study.tasks if task.name in wanted]
    prepared = {task.digest: task for task in (*tasks, *map(study.trained_for, tasks))}
    engine.run([*checks, *(PrepareJob(task, runner) for task in prepared.values())], told)
