"""How trials are carried out, and what becomes of those that fail."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from noisytune._processes import Process
from noisytune._text import encodable
from noisytune.errors import ConfigError, NoisyTuneError
from noisytune.lab.engines import Engine, JobFailed
from noisytune.lab.store import TrialStore
from noisytune.lab.trials.events import Notice, TrialDone, TrialEvent, TrialFailed
from noisytune.lab.trials.jobs import TrialJob
from noisytune.lab.trials.trial import Trial
from noisytune.records import FailureRecord

MOST_LOSSES = 3
"""Machines that may go under a trial in one run, before it is supposed to be the trial that takes them."""
LAST_WORDS = 4000
"""Characters that are kept of a traceback, from its end."""
POLL = 1.0
"""Seconds between two looks at what others do."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How each trial is started, and what to do when something goes wrong or somebody wants to stop.

    Raises:
        ConfigError: no time at all.

    >>> Rules(trial_timeout=3600).fail_fast
    False
    """

    fail_fast: bool = False
    """Whether the first failure ends the study. Else the other trials go on."""
    trial_timeout: float | None = None
    """Seconds after which a trial is given up and counts as failed, > 0; None: never."""
    wait_for_others: bool = True
    """Whether to wait for trials that other processes run. Else they are left to them, once they are known to live."""
    launcher: tuple[str, ...] = ()
    """A program, with its arguments, that starts each training on several processes; none: a training is one."""
    stopping: Callable[[], bool] = lambda: False
    """Asked before each trial: True begins no more, and those that run are finished."""

    def __post_init__(self) -> None:
        if self.trial_timeout is not None and not self.trial_timeout > 0:
            raise ConfigError(f"trial_timeout must be a number of seconds > 0, got {self.trial_timeout}")


class Attempts:
    """Has the trials of a study carried out, keeps their records, and writes down what failed.

    A failure leaves the others alone. For want of memory a trial is tried once more when all others are done, with
    nothing beside it; its settings stay as they are. One whose machine is gone has not failed by itself: it is tried
    again on another, a few times. Trials that others have claimed are left to them.
    """

    def __init__(self, store: TrialStore, engine: Engine, on_event: Callable[[TrialEvent], None], rules: Rules) -> None:
        self.store, self.engine, self.on_event, self.rules = store, engine, on_event, rules
        self.failed: dict[str, NoisyTuneError] = {}
        """Trials without a record, by key: why."""
        self._failed_before = store.failures()
        self._claimed = set[str]()
        self._left: list[TrialJob] = []
        """With what others have claimed."""
        self._again: list[TrialJob] = []
        self._lost: list[TrialJob] = []
        self._losses = Counter[str]()
        self._alone = False

    def run(self, jobs: Iterable[TrialJob]) -> None:
        """Carry out trials, each asked for when a worker is free.

        Args:
            jobs: those that are finished meanwhile are left out.

        Raises:
            NoisyTuneError: the first failure, where the rules say so; or a record cannot be kept.
        """
        try:
            while True:
                self.engine.run(self._taken(jobs), self._told)
                while self._lost:
                    lost, self._lost = self._lost, []
                    self.engine.run(self._limited(lost), self._told)
                while self._again:
                    again, self._again, self._alone = self._again, [], True
                    self.engine.run(self._limited(again), self._told, alone=True)
                    self._alone = False
                if not (jobs := self._free_again()):
                    return
        finally:
            for key in list(self._claimed):
                self._release(key)

    def _taken(self, jobs: Iterable[TrialJob]) -> Iterator[TrialJob]:
        """What nobody has finished or claimed, claimed."""
        for job in jobs:
            if self.rules.stopping():
                return
            missing = self._missing(job)
            taken = tuple(trial for trial in missing if self._take(trial))
            if left := tuple(trial for trial in self._missing(job) if trial not in taken):
                self._left.append(replace(job, trials=left))
            if taken:
                yield from self._limited([replace(job, trials=taken)])

    def _limited(self, jobs: Iterable[TrialJob]) -> Iterator[TrialJob]:
        for job in jobs:
            if self.rules.stopping():
                return
            yield replace(job, limit=self.rules.trial_timeout, launcher=self.rules.launcher)

    def _missing(self, job: TrialJob) -> tuple[Trial, ...]:
        """Its trials that nobody has finished, or tried in vain since this began."""
        return tuple(
            trial
            for trial in job.trials
            if not self.store.has(trial.key)
            and (trial.key in self._claimed or self.store.failure(trial.key) == self._failed_before.get(trial.key))
        )

    def _take(self, trial: Trial) -> bool:
        if not self.store.claim(trial.key):
            return False
        self._claimed.add(trial.key)
        if self.store.has(trial.key):  # finished just before
            self._release(trial.key)
            return False
        return True

    def _release(self, key: str) -> None:
        self._claimed.discard(key)
        self.store.release(key)

    def _free_again(self) -> list[TrialJob]:
        """What others had claimed and is missing all the same; waits as long as that may happen."""
        told = False
        while not self.rules.stopping():
            self._left = [replace(job, trials=missing) for job in self._left if (missing := self._missing(job))]
            states = [self.store.claim_state(trial.key) for job in self._left for trial in job.trials]
            if "free" in states:
                left, self._left = self._left, []
                return left
            if not states or (not self.rules.wait_for_others and "unknown" not in states):
                return []
            if not told:
                self.on_event(Notice(f"{len(states)} trials are being run by other processes: waiting for them"))
                told = True
            time.sleep(POLL)
        return []

    def _told(self, message: Any) -> None:
        """Keep what is finished, and pass on what happens."""
        if isinstance(message, JobFailed):
            self._note(message)
            return
        if isinstance(message, TrialDone):
            self.store.write(message.record)
            self._release(message.record.key)
            self.failed.pop(message.record.key, None)
        self.on_event(message)

    def _note(self, failure: JobFailed) -> None:
        job: Any = failure.job
        missing = self._missing(job)
        again = self._tried_again(replace(job, trials=missing), failure.cause)
        words = "\n".join(getattr(failure.error, "__notes__", ()))[-LAST_WORDS:]
        for trial in missing:
            ended = datetime.now(UTC).isoformat()
            said = encodable(str(failure.error)), encodable(words)
            self.store.write_failure(FailureRecord(trial.key, failure.cause, *said, Process.this().told, ended))
            self.failed[trial.key] = failure.error
            if not again:
                self._release(trial.key)
            self.on_event(TrialFailed(trial, str(failure.error), again))
        if self.rules.fail_fast and not again:
            raise failure.error

    def _tried_again(self, job: TrialJob, cause: str) -> bool:
        """Whether a trial that failed is tried once more; then it is kept for that."""
        if cause == "lost":
            self._losses[job.training.key] += 1
            if self._losses[job.training.key] > MOST_LOSSES:
                return False
            (self._again if self._alone else self._lost).append(job)
            return True
        if cause == "memory" and not self._alone and not self.rules.fail_fast:
            self._again.append(job)
            return True
        return False
