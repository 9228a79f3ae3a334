"""A study: arms x tasks x seeds, planned seed by seed, run as far as it has not been run yet."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from noisytune._metrics import METRICS
from noisytune._pretrained import Model
from noisytune.errors import ConfigError, DamagedRecordError, require
from noisytune.lab.engines import Engine
from noisytune.lab.store import Store, file_name
from noisytune.lab.studies.merge import extend, under_known_names
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.arm import Arm
from noisytune.lab.trials.events import Event, Notice, StudyStarted, TrialDone
from noisytune.lab.trials.head import about_head
from noisytune.lab.trials.jobs import ArmsCheckJob, TokensJob, TrialJob
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import cache_name
from noisytune.lab.trials.trackers import Tracker
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord

MOST_TRIALS = 200_000
"""Of a study."""

Until = Callable[[StudyRecord, list[TrialRecord]], bool]
"""Given the study so far and its finished trials: is the question settled?"""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to compare.

    Raises:
        ConfigError: nothing to compare, a name or seed that occurs twice, or a seed out of range.
    """

    name: str
    """For the report's title."""
    model: Model
    tasks: tuple[TaskData, ...]
    arms: tuple[Arm, ...]
    """The first is the baseline."""
    seeds: tuple[int, ...]
    """0 <= seed < 2**32, in the order in which they are run."""
    training: TrainingSettings
    """What depends on the model is put in: see `TrainingSettings.for_model`."""
    margin: float
    """Differences within +- this many points count as equivalent, >= 0."""
    search: dict[str, Any] | None = None
    """How the arms' settings were chosen: as in `noisytune.records.StudyRecord.search`."""

    def __post_init__(self) -> None:
        for what, names in (
            ("task", [task.name for task in self.tasks]),
            ("arm", [arm.name for arm in self.arms]),
            ("seed", list(self.seeds)),
        ):
            if not names:
                raise ConfigError(f"a study needs at least one {what}")
            twice = next((name for name, times in Counter(names).items() if times > 1), None)
            if twice is not None:
                raise ConfigError(f"the {what} {twice!r} is given twice")
        trials = len(self.tasks) * len(self.arms) * len(self.seeds)
        if trials > MOST_TRIALS:
            raise ConfigError(f"{trials:,} trials are more than {MOST_TRIALS:,}: give fewer seeds, arms or tasks")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise ConfigError(f"seed {seed}: must be a whole number, 0 <= seed < 2**32")
        if not 0 <= self.margin < math.inf:
            raise ConfigError(f"margin must be a finite number of points, >= 0, got {self.margin}")
        object.__setattr__(self, "training", self.training.for_model(self.model))

    @cached_property
    def plan(self) -> tuple[Trial, ...]:
        """Every trial: seed by seed, so that all arms are equally far at any time, and the baseline first."""
        return tuple(
            Trial.resolve(self.model, task, arm, seed, self.training)
            for seed in self.seeds
            for task in self.tasks
            for arm in self.arms
        )

    @property
    def file_name(self) -> str:
        """What to call it where several studies share a folder: its name and its model's."""
        return file_name(self.name, self.model.name.rsplit("/")[-1])

    @cached_property
    def record(self) -> StudyRecord:
        """The study as it is written down."""
        return StudyRecord(
            name=self.name,
            model={"name": self.model.name, "digest": self.model.digest},
            tasks=[
                {
                    "name": task.name,
                    "kind": task.kind,
                    "metric": task.metric,
                    "metric_label": METRICS[task.kind][task.metric].label,
                    "labels": list(task.labels),
                    "train_size": len(task.train),
                    "dev_size": len(task.dev),
                    "majority": task.majority,
                    "digest": task.digest,
                    "part_of": task.part_of,
                    "facts": task.facts,
                }
                for task in self.tasks
            ],
            arms=[arm.name for arm in self.arms],
            seeds=list(self.seeds),
            training=self.training.to_dict(),
            margin=self.margin,
            trials=[trial.plan_entry for trial in self.plan],
            search=self.search,
        )


def run_study(
    study: Study,
    store: Store,
    engine: Engine,
    on_event: Callable[[Event], None],
    until: Until | None = None,
    report_to: str | None = None,
) -> StudyRecord:
    """Run what is missing of a study, and keep every trial as soon as it is finished.

    Args:
        study: what to compare.
        store: the run folder: empty, or with a study that this one extends.
        engine: where trials run.
        on_event: told of everything that happens, in this thread.
        until: asked whenever a worker is free and the next seed would begin; once it says yes, no seed is begun any
            more. Every seed that was begun, now or earlier, is finished in all arms. Then it is asked again, and a no
            begins further seeds. The study that is kept has the seeds that were begun.
        report_to: a tracker that trials log to as well: one of `noisytune.lab.trials.trackers.TRACKERS`.

    Returns:
        the study as it is kept now, with what was there before.

    Raises:
        RunFolderError: the folder holds another study, is in use, or cannot be written.
        TrialError: a trial failed; finished ones are kept.
        NoisyTuneError: something is wrong with the model, the data or the settings.
    """
    for library in ("torch", "transformers", "accelerate"):
        require(library, extra="lab", needed_for="fine-tuning")
    tracker = Tracker(report_to, store.logs_folder.absolute()) if report_to else None

    def on_message(message: Event) -> None:
        if isinstance(message, TrialDone):
            store.write(message.record)
        on_event(message)

    with store.lock() as notice:
        earlier = store.read_study()
        if earlier:
            model, tasks = under_known_names(study.model, study.tasks, earlier)
            study = replace(study, model=model, tasks=tasks)
        everything = extend(earlier, study.record, store.folder)
        damaged = set_damaged_aside(store, everything)
        finished = tuple(store.records(trial.key for trial in study.plan))
        known = {record.key for record in finished}
        missing = tuple(trial for trial in study.plan if trial.key not in known)
        on_event(StudyStarted(everything, finished, missing, store.folder))
        head = about_head(study.model.name, study.model.path, study.training.keep_head)
        told = [notice, *damaged, *head, *(notice for task in study.tasks for notice in task.notices)]
        for text in dict.fromkeys(filter(None, told)):
            on_event(Notice(text))
        begun = [seed for seed in study.seeds if not until or (earlier and seed in earlier.seeds)]
        waiting = deque(seed for seed in study.seeds if seed not in begun)
        kept = _upto(study, begun, earlier, store) if begun else None

        def settled() -> bool:
            return bool(until and kept and until(kept, store.records(entry["key"] for entry in kept.trials)))

        def jobs() -> Iterator[TrialJob]:
            nonlocal kept
            for trial in missing:
                if trial.seed in begun and not store.has(trial.key):
                    yield job(trial)
            while waiting and not settled():
                begun.append(waiting.popleft())
                kept = _upto(study, begun, earlier, store)
                store.write_study(kept)
                yield from (job(trial) for trial in missing if trial.seed == begun[-1])

        def job(trial: Trial) -> TrialJob:
            return TrialJob(trial, study.model.path.absolute(), tokens_file(study, store, trial.task), tracker)

        def run() -> None:
            if missing:
                engine.run(jobs(), on_message)
            else:
                deque(jobs(), maxlen=0)

        unfinished = any(trial.seed in begun for trial in missing)
        if missing and (unfinished or not settled()):
            engine.start(len(missing))
            check_arms(study, engine, missing)
            make_tokens(study, store, engine, missing, on_event)
        if kept:
            store.write_study(kept)
        if unfinished:
            run()
        # Trials that were still running when the answer was yes may have changed it.
        while waiting and not settled():
            run()
        return kept or everything


def set_damaged_aside(store: Store, study: StudyRecord) -> list[str]:
    """Rename the records of a study that are not what was written, so that their trials are run again.

    Args:
        store: the run folder, which is locked.
        study: whose trials are looked at.

    Returns:
        what the user should know, a line each.
    """
    notices, done = [], store.index()
    for entry in study.trials:
        if entry["key"] not in done:
            continue
        try:
            store.read(entry["key"])
        except DamagedRecordError as error:
            notices.append(f"{error}; the record is kept as {store.set_aside(entry['key']).name}")
    return notices


def _upto(study: Study, begun: list[int], earlier: StudyRecord | None, store: Store) -> StudyRecord:
    """What the folder holds once the seeds begun so far are done."""
    return extend(earlier, replace(study, seeds=tuple(begun)).record, store.folder)


def check_arms(study: Study, engine: Engine, missing: tuple[Trial, ...]) -> None:
    """See that every arm is possible on the weights, before anything is kept or trained.

    Args:
        study: what to compare.
        engine: where to look.
        missing: trials whose arms are looked at.

    Raises:
        NoisyTuneError: one is not.
    """
    wanted = {trial.arm for trial in missing}
    arms = tuple(arm.methods for arm in study.arms if arm.name in wanted and arm.methods)
    if arms:
        # Each kind of task has a head of its own.
        firsts = {trial.settings["task"]["kind"]: trial for trial in reversed(missing)}
        jobs = [ArmsCheckJob(trial, study.model.path.absolute(), arms) for trial in firsts.values()]
        engine.run(jobs, lambda _: None)


def make_tokens(
    study: Study, store: Store, engine: Engine, missing: tuple[Trial, ...], on_event: Callable[[Event], None]
) -> None:
    """Write the tokens of tasks, unless they are there.

    Args:
        study: what to compare.
        store: where to.
        engine: where it is done.
        missing: trials whose tasks are needed.
        on_event: told of notices.
    """
    wanted = {trial.task for trial in missing}
    jobs = [
        TokensJob(task, study.model.path.absolute(), study.training.max_length, tokens_file(study, store, task.name))
        for task in study.tasks
        if task.name in wanted
    ]

    def on_message(message: Event | tuple[str, ...]) -> None:
        if not isinstance(message, tuple):
            on_event(message)
            return
        for notice in message:
            on_event(Notice(notice))

    engine.run(jobs, on_message)


def tokens_file(study: Study, store: Store, task_name: str) -> Path:
    """Where the tokens of one of the study's tasks are."""
    task = next(task for task in study.tasks if task.name == task_name)
    return store.cache_folder.absolute() / cache_name(study.model.digest, task, study.training.max_length)
