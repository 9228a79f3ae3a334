"""What a running trial tells: plain frozen data, sent from the workers to one callback."""

from __future__ import annotations

from dataclasses import dataclass

from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord


@dataclass(frozen=True)
class Notice:
    """One line that the user should see."""

    text: str


@dataclass(frozen=True)
class TrialStarted:
    """A worker begins a trial."""

    trial: Trial


@dataclass(frozen=True)
class TrialProgress:
    """A trial has done another step."""

    key: str
    """The trial's key."""
    step: int
    """1 .. total_steps."""
    total_steps: int
    loss: float | None
    """The step's training loss; None where it is not finite."""


@dataclass(frozen=True)
class TrialDone:
    """A trial is finished and kept."""

    record: TrialRecord


@dataclass(frozen=True)
class TrialFailed:
    """A trial has no record. The others go on."""

    trial: Trial
    message: str
    """One line."""
    again: bool = False
    """Whether it is tried once more before the study ends."""


TrialEvent = Notice | TrialStarted | TrialProgress | TrialDone | TrialFailed
"""What a job sends."""
