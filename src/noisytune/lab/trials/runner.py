"""How a trial is carried out: what a study needs of a trainer, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

if TYPE_CHECKING:
    from noisytune.lab.tasks import TaskData

OnStep = Callable[[int, int, float | None], None]
"""Called after each step with the step (from 1), the number of steps, and the loss (None where it is not finite)."""


@dataclass(frozen=True)
class Speed:
    """What a few timed steps of a model show, by one worker."""

    parameters: int
    """Without embeddings."""
    lengths: dict[str, dict[str, float]]
    """Mean tokens of an example, by task and split."""
    tokens_per_second: float
    """In training; padding does not count."""
    load_seconds: float


@runtime_checkable
class Portable(Protocol):
    """What a `Runner` has besides, where its trials can run on machines that do not see its files."""

    def needs(self, trials: Sequence[Trial]) -> dict[str, tuple[Path, ...]]:
        """The files that it reads for these trials, by what they are; those of one name lie in one folder."""
        ...

    def at(self, places: Mapping[str, Path]) -> Runner:
        """The same runner where these files lie in other folders, named as `needs` does."""
        ...


@runtime_checkable
class Warming(Protocol):
    """What a `Runner` has besides, where its first trial would have to import much."""

    def warm_up(self) -> None:
        """Import it, in a worker that has nothing to do yet."""
        ...


class Runner(Protocol):
    """Trains the trials of one study. It is pickled with each job, so it is small, all data, and loads late.

    `noisytune.lab.trials.transformers_runner.TransformersRunner` is one. Another may call a function of the user's, or
    a command: it gets a trial's settings, and gives the record of what came out.

    >>> class Constant:
    ...     def prepare(self, task): return ()
    ...     def check(self, trial, arms): return ()
    ...     def run(self, training, trials, on_step):
    ...         for one in trials:
    ...             yield TrialRecord(one.key, one.settings, "ok", {"accuracy": 0.5}, [1.0], {"total": 0.1}, {}, {})
    ...     def calibrate(self, trial, tasks): raise NotImplementedError
    >>> runner: Runner = Constant()
    """

    def prepare(self, task: TaskData) -> tuple[str, ...]:
        """Do what all trials of a task share, once, before the first one: texts become tokens.

        Returns:
            what the user should know, one line each.
        """
        ...

    def check(self, trial: Trial, arms: Sequence[Sequence[dict[str, Any]]]) -> tuple[str, ...]:
        """See that arms are possible, before anything is trained. Nothing is changed.

        Args:
            trial: any of its kind of task: it says which head the model gets.
            arms: each as in `noisytune.lab.trials.arm.Arm.methods`.

        Returns:
            what the user should know about them, one line each.

        Raises:
            NoisyTuneError: one is not.
        """
        ...

    def run(self, training: Trial, trials: Sequence[Trial], on_step: OnStep) -> Iterator[TrialRecord]:
        """Train once, and give the record of each trial that rests on it. Settings decide the outcome, nothing else.

        Args:
            training: the resolved settings that say what is trained.
            trials: usually itself alone. Others score what the same training gives on their own task.
            on_step: told of every step.

        Yields:
            the records, in the order of the trials.

        Raises:
            NoisyTuneError: it cannot be done. A trial that fails to learn is a record, no error.
        """
        ...

    def calibrate(self, trial: Trial, tasks: Sequence[TaskData]) -> Speed:
        """Time a few steps of a trial.

        Args:
            trial: on the first of the tasks that has its name.
            tasks: those with trainings of one kind; samples will do.
        """
        ...
