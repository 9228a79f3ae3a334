"""A study: arms x tasks x seeds, planned seed by seed, run as far as it has not been run yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from noisytune.errors import ConfigError, RunFolderError, require
from noisytune.lab.engines import Engine
from noisytune.lab.events import Event, Notice, StudyStarted, TrialDone
from noisytune.lab.jobs import TokensJob, TrialJob
from noisytune.lab.metrics import METRICS
from noisytune.lab.model import Model
from noisytune.lab.store import Store
from noisytune.lab.tasks import TaskData
from noisytune.lab.tokens import cache_name
from noisytune.lab.trackers import Tracker
from noisytune.lab.trial import Arm, TrainingSettings, Trial
from noisytune.records import StudyRecord, TrialRecord

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
    margin: float
    """Differences within +- this many points count as equivalent, >= 0."""

    def __post_init__(self) -> None:
        for what, names in (
            ("task", [task.name for task in self.tasks]),
            ("arm", [arm.name for arm in self.arms]),
            ("seed", list(self.seeds)),
        ):
            if not names:
                raise ConfigError(f"a study needs at least one {what}")
            twice = [name for name in names if names.count(name) > 1]  # type: ignore[arg-type]
            if twice:
                raise ConfigError(f"the {what} {twice[0]!r} is given twice")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise ConfigError(f"seed {seed}: must be a whole number, 0 <= seed < 2**32")
        if not self.margin >= 0:
            raise ConfigError(f"margin must be >= 0 points, got {self.margin}")

    @cached_property
    def plan(self) -> tuple[Trial, ...]:
        """Every trial: seed by seed, so that all arms are equally far at any time, and the baseline first."""
        return tuple(
            Trial.resolve(self.model, task, arm, seed, self.training)
            for seed in self.seeds
            for task in self.tasks
            for arm in self.arms
        )

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
                    "metric_label": METRICS[task.metric].label,
                    "labels": list(task.labels),
                    "train_size": len(task.train),
                    "dev_size": len(task.dev),
                    "majority": task.majority,
                    "digest": task.digest,
                }
                for task in self.tasks
            ],
            arms=[arm.name for arm in self.arms],
            seeds=list(self.seeds),
            training=self.training.to_dict(),
            margin=self.margin,
            trials=[trial.plan_entry for trial in self.plan],
        )


def extend(earlier: StudyRecord | None, study: StudyRecord, folder: Path) -> StudyRecord:
    """What a run folder holds once ``study`` is done in it: seeds, arms and tasks of both.

    Args:
        earlier: what is in the folder, or None.
        study: what is asked for now. Its name and margin win.
        folder: for the error message.

    Raises:
        RunFolderError: the two cannot be compared: another model, training, task under the same name, or baseline.
    """
    if earlier is None:
        return study
    difference = _difference(earlier, study)
    if difference:
        raise RunFolderError(f"{folder} holds another study: {difference}; choose another --out")
    tasks = {task["name"]: task for task in (*earlier.tasks, *study.tasks)}
    seeds = sorted({*earlier.seeds, *study.seeds})
    entries = {entry["key"]: entry for entry in (*earlier.trials, *study.trials)}
    return replace(
        study,
        tasks=list(tasks.values()),
        arms=list(dict.fromkeys([*earlier.arms, *study.arms])),
        seeds=seeds,
        trials=sorted(entries.values(), key=lambda entry: seeds.index(entry["seed"])),
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
            more. Every seed that was begun, now or earlier, is finished in all arms. The study that is kept has those
            seeds only.
        report_to: a tracker that trials log to as well: one of `noisytune.lab.trackers.TRACKERS`.

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

    with store.lock():
        earlier = store.read_study()
        if earlier and earlier.model["digest"] == study.model.digest:
            # The same weights under another name are still the same.
            study = replace(study, model=replace(study.model, name=earlier.model["name"]))
        everything = extend(earlier, study.record, store.folder)
        missing = tuple(trial for trial in study.plan if not store.has(trial.key))
        on_event(StudyStarted(everything, tuple(store.records(trial.key for trial in study.plan)), missing))
        for notice in dict.fromkeys(notice for task in study.tasks for notice in task.notices):
            on_event(Notice(notice))
        if missing:
            engine.start(len(missing))
            _make_tokens(study, store, engine, missing, on_event)
        kept = earlier if until else everything
        if kept is everything:
            store.write_study(everything)

        def jobs() -> Iterator[TrialJob]:
            nonlocal kept
            for position, seed in enumerate(study.seeds):
                left = [trial for trial in missing if trial.seed == seed]
                if until and kept and seed not in kept.seeds and until(kept, _finished(kept, store)):
                    return
                if until:
                    begun = replace(study, seeds=study.seeds[: position + 1])
                    kept = extend(earlier, begun.record, store.folder)
                    store.write_study(kept)
                for trial in left:
                    yield TrialJob(trial, study.model.path.absolute(), _tokens_file(study, store, trial.task), tracker)

        if missing:
            engine.run(jobs(), on_message)
        else:
            deque(jobs(), maxlen=0)
        return kept or everything


def _make_tokens(
    study: Study, store: Store, engine: Engine, missing: tuple[Trial, ...], on_event: Callable[[Event], None]
) -> None:
    wanted = {trial.task for trial in missing}
    jobs = [
        TokensJob(task, study.model.path.absolute(), study.training.max_length, _tokens_file(study, store, task.name))
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


def _finished(study: StudyRecord, store: Store) -> list[TrialRecord]:
    return store.records(entry["key"] for entry in study.trials)


def _tokens_file(study: Study, store: Store, task_name: str) -> Path:
    task = next(task for task in study.tasks if task.name == task_name)
    return store.cache_folder.absolute() / cache_name(study.model.digest, task, study.training.max_length)


def _difference(earlier: StudyRecord, study: StudyRecord) -> str | None:
    """Why two studies cannot share a folder, or None."""
    if earlier.model["digest"] != study.model["digest"]:
        names = {earlier.model["name"], study.model["name"]}
        same_name = " (the same name, but other weights, configuration or tokenizer)" if len(names) == 1 else ""
        return f"its model is {earlier.model['name']}, not {study.model['name']}{same_name}"
    for setting in {**earlier.training, **study.training}:
        old, new = earlier.training.get(setting), study.training.get(setting)
        if old != new:
            return f"its {setting} is {old}, not {new}"
    digests = {task["name"]: task["digest"] for task in earlier.tasks}
    for task in study.tasks:
        if digests.get(task["name"], task["digest"]) != task["digest"]:
            return f"its task {task['name']} has other examples (or another number or selection of them)"
    if earlier.arms[0] != study.arms[0]:
        return f"its baseline is {earlier.arms[0]}, not {study.arms[0]}"
    return None
