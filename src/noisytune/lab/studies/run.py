"""Running a study as far as it has not been run yet: after an interruption, and when it grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import groupby

from noisytune.errors import RunFolderError
from noisytune.lab.engines import Engine
from noisytune.lab.store import StudyStore
from noisytune.lab.studies.attempts import Attempts, Rules
from noisytune.lab.studies.events import Event, StudyStarted, each_notice_once
from noisytune.lab.studies.merge import extend, under_known_names
from noisytune.lab.studies.ready import about_room, get_ready, say_notices, set_damaged_aside
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.events import Notice
from noisytune.lab.trials.jobs import TrialJob
from noisytune.lab.trials.runner import Runner
from noisytune.lab.trials.trackers import Tracker
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord

USUAL = Rules()
"""Trials take as long as they take, and a failure leaves the others alone."""

Until = Callable[[StudyRecord, list[TrialRecord]], bool]
"""Decides whether a study has enough seeds. It gets the study so far and its finished trials; True ends the study.

Twenty pairs, whatever they show::

    def until(study, records):
        return len(study.seeds) >= 20
"""


def run_study(
    study: Study,
    store: StudyStore,
    engine: Engine,
    on_event: Callable[[Event], None],
    until: Until | None = None,
    report_to: str | None = None,
    runner: Runner | None = None,
    rules: Rules = USUAL,
) -> StudyRecord:
    """Run what is missing of a study, and keep every trial as soon as it is finished.

    A trial that fails is written down, the others go on, and the next run tries it again.

    Args:
        study: what to compare.
        store: the run folder: empty, or with a study that this one extends.
        engine: where trials run.
        on_event: told of everything that happens, in this thread.
        until: asked before each seed after the first, and once more when everything that was begun is finished. True
            begins no more seeds. None: all seeds are run. Example: ``lambda study, records: len(study.seeds) >= 20``.
        report_to: a tracker that trials log to as well: one of `noisytune.lab.trials.trackers.TRACKERS`.
        runner: how trials are carried out; None: with the transformers Trainer.
        rules: what to do about failures, for how long, and until when.

    Returns:
        the study as it is kept now: the seeds that were begun, and what was there before. ``store.failures()`` has the
        trials that failed.

    Raises:
        RunFolderError: the folder holds another study, is in use, or cannot be written.
        TrialError: a trial failed, and no other trial of the study is finished, or the rules say so.
        NoisyTuneError: something is wrong with the model, the data or the settings.
    """
    runner = runner or TransformersRunner.of(study.model, study.training.max_length, store.cache_folder)
    tracker = tracker_of(report_to, store, study)
    with store.lock() as notice:
        earlier = store.read_study()
        if earlier:
            if earlier.search and not study.search:
                raise RunFolderError(
                    f"{store.folder} holds a study whose settings were searched, and this one searches nothing: "
                    "give another --out"
                )
            model, tasks = under_known_names(study.model, study.tasks, earlier)
            study = replace(study, model=model, tasks=tasks)
        run = _Run(study, earlier, store, engine, runner, on_event, until, tracker, rules)
        run.announce(notice)
        return run.to_its_end()


class _Run:
    """A study on its way: which seeds were begun, which are waiting."""

    def __init__(
        self,
        study: Study,
        earlier: StudyRecord | None,
        store: StudyStore,
        engine: Engine,
        runner: Runner,
        on_event: Callable[[Event], None],
        until: Until | None,
        tracker: Tracker | None,
        rules: Rules,
    ) -> None:
        self.study, self.earlier, self.store, self.engine, self.runner = study, earlier, store, engine, runner
        self.on_event, self.until, self.tracker, self.rules = each_notice_once(on_event), until, tracker, rules
        self.attempts = Attempts(store, engine, self.on_event, rules)
        self.everything = extend(earlier, study.record, store.folder)
        self.damaged = set_damaged_aside(store, (entry["key"] for entry in self.everything.trials))
        before = set(earlier.seeds) if earlier else set()
        self.begun = [seed for seed in study.seeds if not until or seed in before]
        known = set(self.begun)
        self.waiting = deque(seed for seed in study.seeds if seed not in known)

    @cached_property
    def missing(self) -> dict[int, list[Trial]]:
        """The trials to run, by seed: those that were not finished when the study was opened."""
        done, missing = self.store.index(), dict[int, list[Trial]]()
        for trial in self.study.plan:
            if trial.key not in done:
                missing.setdefault(trial.seed, []).append(trial)
        return missing

    def announce(self, notice: str) -> None:
        """Tell what there is and what is missing."""
        missing = tuple(trial for trials in self.missing.values() for trial in trials)
        finished = tuple(self.store.records(trial.key for trial in self.study.plan))
        self.on_event(StudyStarted(self.everything, finished, missing, self.store.folder))
        room = about_room(self.store.folder, missing, finished)
        say_notices(self.study, (notice, room, *self.damaged), self.on_event)

    def to_its_end(self) -> StudyRecord:
        """Finish the seeds that were begun; then begin others until there are enough."""
        unfinished = any(seed in self.missing for seed in self.begun)
        if self.missing and (unfinished or not self.settled()):
            missing = [trial for trials in self.missing.values() for trial in trials]
            self.tracker = reachable(self.tracker, self.on_event)
            get_ready(self.study, self.runner, self.engine, missing, self.on_event)
        if self.begun:
            self.store.write_study(self.kept())
        if unfinished:
            self.work()
        # Trials that were still running when the answer was yes may have changed it.
        while self.waiting and not self.rules.stopping() and not self.settled():
            self.work()
        self.raise_if_all_failed()
        return self.kept() if self.begun else self.everything

    def kept(self) -> StudyRecord:
        """What the folder holds once the seeds begun so far are done."""
        whole, begun = self.study.record, set(self.begun)
        trials = [entry for entry in whole.trials if entry["seed"] in begun]
        return extend(self.earlier, replace(whole, seeds=list(self.begun), trials=trials), self.store.folder)

    def settled(self) -> bool:
        """Whether ``until`` says that the seeds begun so far are enough."""
        if not self.until or not self.begun:
            return False
        kept = self.kept()
        return self.until(kept, self.store.records(entry["key"] for entry in kept.trials))

    def work(self) -> None:
        """Run the trials that are missing of the seeds begun, and of those that are begun meanwhile."""
        if self.missing:
            self.attempts.run(self.jobs())
        else:
            deque(self.jobs(), maxlen=0)

    def jobs(self) -> Iterator[TrialJob]:
        """One for each trial, each asked for when a worker is free."""
        for seed in list(self.begun):
            yield from self.jobs_of(seed)
        while self.waiting and not self.settled():
            self.begun.append(self.waiting.popleft())
            self.store.write_study(self.kept())
            yield from self.jobs_of(self.begun[-1])

    def jobs_of(self, seed: int) -> Iterator[TrialJob]:
        """The trials of a seed that are not finished."""
        yield from trial_jobs(self.study, self.missing.get(seed, ()), self.runner, self.tracker)

    def raise_if_all_failed(self) -> None:
        """Where nothing else came out, the first failure is what there is to tell."""
        failed = self.attempts.failed
        if failed and not any(self.store.has(trial.key) for trial in self.study.plan):
            raise next(iter(failed.values()))


def tracker_of(report_to: str | None, store: StudyStore, study: Study) -> Tracker | None:
    """Where the trials of a study log as well; None: nowhere."""
    return Tracker(report_to, store.logs_folder.absolute(), study.name) if report_to else None


def reachable(tracker: Tracker | None, on_event: Callable[[Event], None]) -> Tracker | None:
    """The tracker; None, with a notice, where it cannot be reached: a study goes on without it."""
    if tracker and replace(tracker, warn=lambda text: on_event(Notice(text))).reached():
        return tracker
    return None


def trial_jobs(study: Study, trials: Iterable[Trial], runner: Runner, tracker: Tracker | None) -> Iterator[TrialJob]:
    """A job for each training: seed by seed, the longest of a seed first, so that at the end no worker waits for long.

    Args:
        study: of the trials.
        trials: in the order of the plan; of equally long ones the baseline stays the first.
        runner: how they are carried out.
        tracker: where they log as well.
    """
    for _, of_seed in groupby(trials, key=lambda trial: trial.seed):
        together: dict[str, tuple[Trial, list[Trial]]] = {}
        for trial in of_seed:
            training = study.training_of(trial)
            together.setdefault(training.key, (training, []))[1].append(trial)
        for training, asked in sorted(together.values(), key=lambda each: -each[0].examples):
            yield TrialJob(training, tuple(asked), runner, tracker)
