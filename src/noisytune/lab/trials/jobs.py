"""What a study asks its workers to do: each job hands its part to a runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from noisytune.errors import TrialError
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.events import Notice, TrialDone, TrialEvent, TrialProgress, TrialStarted
from noisytune.lab.trials.launched import Launched
from noisytune.lab.trials.runner import Portable, Runner, Speed
from noisytune.lab.trials.trackers import Followed, Tracker
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

Report = Callable[[TrialEvent], None]


class _Portable:
    """What can be done on a machine that does not see this one's files: see `noisytune.lab.trials.runner.Portable`."""

    runner: Runner

    def needs(self) -> dict[str, tuple[Path, ...]]:
        """The files of its runner."""
        return self.runner.needs(self._about()) if isinstance(self.runner, Portable) else {}

    def at(self, places: Mapping[str, Path]) -> Self:
        """The same job where these files lie in other folders."""
        return replace(self, runner=self.runner.at(places))  # type: ignore[type-var,attr-defined]

    def _about(self) -> tuple[Trial, ...]:
        return ()


@dataclass(frozen=True)
class TrialJob(_Portable):
    """One training, to be run in a worker, and the trials that it serves."""

    training: Trial
    """What is trained."""
    trials: tuple[Trial, ...]
    """Those that are to be scored: usually the same one alone."""
    runner: Runner
    tracker: Tracker | None = None
    limit: float | None = None
    """Seconds after which it is given up; None: never."""
    launcher: tuple[str, ...] = ()
    """What starts the processes of the training, as in `noisytune.lab.trials.launched.Launched`; none: it is one."""

    @property
    def label(self) -> str:
        """The first trial's."""
        return self.trials[0].label

    @property
    def together(self) -> str:
        """A pair differs in the arm only: not in the kind of device either."""
        return f"{self.trials[0].task} {self.trials[0].seed}"

    def _about(self) -> tuple[Trial, ...]:
        return (self.training, *self.trials)

    def __call__(self, report: Report) -> TrialDone:
        """Run it, reporting every step. Each record but the last is reported as soon as it is there.

        Raises:
            TrialError: a record is not the trial's, or holds a number that is not finite.
        """
        first, last = self.trials[0], self.trials[-1]

        def on_step(step: int, total_steps: int, loss: float | None) -> None:
            report(TrialProgress(first.key, step, total_steps, loss))
            followed.loss(step, loss)

        tracker = self.tracker and replace(self.tracker, warn=lambda warning: report(Notice(warning)))
        with Followed(tracker, self.training) as followed:
            runner = Launched(self.runner, self.launcher) if self.launcher else self.runner
            records = runner.run(self.training, self.trials, on_step)
            for trial in self.trials:
                report(TrialStarted(trial))
                done = TrialDone(_believable(next(records, None), trial))
                followed.scores(done.record)
                if trial is not last:
                    report(done)
        return done


def _believable(record: TrialRecord | None, trial: Trial) -> TrialRecord:
    """What a runner gave, if it can be kept: a runner may be anybody's."""
    if record is None or record.key != trial.key:
        raise TrialError(
            f"{trial.label} failed: its runner gave {'no' if record is None else 'another'} trial's record"
        )
    try:
        record.to_json().encode()
    except (TypeError, ValueError) as error:
        raise TrialError(
            f"{trial.label} failed: its record cannot be kept ({error}): a score that is undefined is left out"
        ) from error
    return record


class _Anywhere:
    """What takes as long as it takes, on any device."""

    limit: float | None = None
    together: str = ""


@dataclass(frozen=True)
class CheckJob(_Anywhere, _Portable):
    """See whether arms are possible."""

    trial: Trial
    """Any of its kind of task."""
    runner: Runner
    arms: tuple[tuple[dict[str, Any], ...], ...]
    """Each as in `noisytune.lab.trials.arm.Arm.methods`."""

    @property
    def label(self) -> str:
        """What is checked."""
        return "checking the arms"

    def __call__(self, report: Report) -> None:
        """Raise if they are not, reporting what the user should know."""
        for notice in self.runner.check(self.trial, self.arms):
            report(Notice(notice))


@dataclass(frozen=True)
class PrepareJob(_Anywhere):
    """Do what the trials of a task share, beside the run folder."""

    task: TaskData
    runner: Runner
    here: ClassVar[bool] = True
    """On the machine of the main process, whatever the engine."""

    @property
    def label(self) -> str:
        """The task's."""
        return f"preparing {self.task.name}"

    def __call__(self, report: Report) -> None:
        """Do it, reporting what the user should know."""
        for notice in self.runner.prepare(self.task):
            report(Notice(notice))


@dataclass(frozen=True)
class CalibrationJob(_Anywhere, _Portable):
    """Time a few steps of one trial."""

    trial: Trial
    runner: Runner
    tasks: tuple[TaskData, ...]
    """Samples of one kind; the trial's task is among them."""

    @property
    def label(self) -> str:
        """What is done."""
        return f"timing {self.trial.settings['model']['name']}"

    def __call__(self, report: Report) -> Speed:
        """Do it."""
        return self.runner.calibrate(self.trial, self.tasks)
