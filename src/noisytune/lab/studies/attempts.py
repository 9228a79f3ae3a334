"""How trials are carried out, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from noisytune._processes import Process
from noisytune.errors import ConfigError, NoisyTuneError
from noisytune.lab.engines import Engine, JobFailed
from noisytune.lab.store import TrialStore
from noisytune.lab.trials.events import TrialDone, TrialEvent, TrialFailed
from noisytune.lab.trials.jobs import TrialJob
from noisytune.lab.trials.trial import Trial
from noisytune.records import FailureRecord

LAST_WORDS = 4000
"""Characters that are kept of a traceback, from its end."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What to do when something goes wrong, or somebody wants to stop.

    Raises:
        ConfigError: no time at all.
    """

    fail_fast: bool = False
    """Whether the first failure ends the study. Else the other trials go on."""
    trial_timeout: float | None = None
    """Seconds after which a trial is given up and counts as failed, > 0; None: never."""
    stopping: Callable[[], bool] = lambda: False
    """Asked before each trial: True begins no more, and those that run are finished."""

    def __post_init__(self) -> None:
        if self.trial_timeout is not None and not self.trial_timeout > 0:
            raise ConfigError(f"trial_timeout must be a number of seconds > 0, got {self.trial_timeout}")


class Attempts:
    """Has the trials of a study carried out, keeps their records, and writes down what failed.

    A failure leaves the others alone. For want of memory a trial is tried once more when all others are done, with
    nothing beside it; its settings stay as they are.
    """

    def __init__(self, store: TrialStore, engine: Engine, on_event: Callable[[TrialEvent], None], rules: Rules) -> None:
        self.store, self.engine, self.on_event, self.rules = store, engine, on_event, rules
        self.failed: dict[str, NoisyTuneError] = {}
        """Trials without a record, by key: why."""
        self._again: list[TrialJob] = []
        self._alone = False

    def run(self, jobs: Iterable[TrialJob]) -> None:
        """Carry out trials, each asked for when a worker is free.

        Args:
            jobs: those that are finished meanwhile are left out.

        Raises:
            NoisyTuneError: the first failure, where the rules say so; or a record cannot be kept.
        """
        self.engine.run(self._limited(jobs), self._told)
        if self._again:
            again, self._again = self._again, []
            self._alone = True
            self.engine.run(self._limited(again), self._told, alone=True)
            self._alone = False

    def _limited(self, jobs: Iterable[TrialJob]) -> Iterator[TrialJob]:
        for job in jobs:
            if self.rules.stopping():
                return
            if missing := self._missing(job):
                yield replace(job, trials=missing, limit=self.rules.trial_timeout)

    def _missing(self, job: TrialJob) -> tuple[Trial, ...]:
        return tuple(trial for trial in job.trials if not self.store.has(trial.key))

    def _told(self, message: Any) -> None:
        """Keep what is finished, and pass on what happens."""
        if isinstance(message, JobFailed):
            self._note(message)
            return
        if isinstance(message, TrialDone):
            self.store.write(message.record)
            self.failed.pop(message.record.key, None)
        self.on_event(message)

    def _note(self, failure: JobFailed) -> None:
        job: Any = failure.job
        again = failure.cause == "memory" and not self._alone and not self.rules.fail_fast
        if again:
            self._again.append(job)
        words = "\n".join(getattr(failure.error, "__notes__", ()))[-LAST_WORDS:]
        for trial in self._missing(job):
            ended = datetime.now(UTC).isoformat(timespec="seconds")
            told = FailureRecord(trial.key, failure.cause, str(failure.error), words, Process.this().told, ended)
            self.store.write_failure(told)
            self.failed[trial.key] = failure.error
            self.on_event(TrialFailed(trial, str(failure.error), again))
        if self.rules.fail_fast:
            raise failure.error
