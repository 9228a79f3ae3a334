"""What a study asks its workers to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.events import Event, Notice, TrialDone, TrialProgress, TrialStarted
from noisytune.lab.trials.tokens import Tokens, tokenise
from noisytune.lab.trials.trackers import Tracker
from noisytune.lab.trials.trial import Trial


@dataclass(frozen=True)
class TrialJob:
    """One trial, to be run in a worker."""

    trial: Trial
    model_dir: Path
    tokens_file: Path
    tracker: Tracker | None

    @property
    def label(self) -> str:
        """The trial's."""
        return self.trial.label

    def __call__(self, report: Callable[[Event], None]) -> TrialDone:
        """Run it, reporting every step."""
        from noisytune.lab.trials.fine_tune import run_trial

        def on_step(step: int, total_steps: int, loss: float | None) -> None:
            report(TrialProgress(self.trial.key, step, total_steps, loss))

        report(TrialStarted(self.trial))
        tracker = self.tracker and replace(self.tracker, warn=lambda warning: report(Notice(warning)))
        return TrialDone(run_trial(self.trial, self.model_dir, _read_tokens(self.tokens_file), on_step, tracker))


@dataclass(frozen=True)
class ArmsCheckJob:
    """See whether the methods of arms can work on the weights, without changing any."""

    trial: Trial
    """Any of its kind in the study: it says which head the model gets."""
    model_dir: Path
    arms: tuple[tuple[dict[str, Any], ...], ...]
    """Each as in `noisytune.lab.trials.arm.Arm.methods`."""

    @property
    def label(self) -> str:
        """What is checked."""
        return "checking the arms"

    def __call__(self, report: Callable[[Event], None]) -> tuple[str, ...]:
        """Raise if they cannot; the notices about them."""
        from noisytune.lab.trials.fine_tune import check_arms

        return check_arms(self.trial, self.model_dir, self.arms)


@dataclass(frozen=True)
class TokensJob:
    """Make the tokens of a task, unless they are there."""

    task: TaskData
    model_dir: Path
    max_length: int
    file: Path

    @property
    def label(self) -> str:
        """The task's."""
        return f"the tokens of {self.task.name}"

    def __call__(self, report: Callable[[Event], None]) -> tuple[str, ...]:
        """The notices about them."""
        if self.file.exists():
            return _read_tokens(self.file).notices
        tokens = tokenise(self.model_dir, self.task, self.max_length)
        tokens.write(self.file)
        return tokens.notices


@lru_cache(maxsize=4)
def _read_tokens(file: Path) -> Tokens:
    """Kept from trial to trial of a worker."""
    return Tokens.read(file)
