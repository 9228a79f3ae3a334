"""What a running study tells whoever shows it: plain frozen data, sent from the workers to one callback."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord


@dataclass(frozen=True)
class StudyStarted:
    """The plan is known; nothing has run yet in this process."""

    study: StudyRecord
    """As it will be when everything asked for is done."""
    finished: tuple[TrialRecord, ...]
    """Trials asked for that an earlier run finished, in the plan's order."""
    missing: tuple[Trial, ...]
    """Trials to run, in order; with ``until``, at most these."""
    folder: Path
    """The run folder."""


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
    """A trial failed. Running ones are finished, no new ones are begun, then the error is raised."""

    label: str
    message: str


@dataclass(frozen=True)
class SearchStarted:
    """The settings of each arm are searched. The study of the winners follows."""

    study: StudyRecord
    """Its task, as the search sees it, and its arms as the user wrote them."""
    budget: int
    """Trials of each arm."""
    done: int
    """Trials that an earlier run finished, of all arms."""
    folder: Path
    """The run folder."""


@dataclass(frozen=True)
class SearchTold:
    """A trial of a search has its score."""

    arm: str
    """As the user wrote it."""
    number: int
    """From 0."""
    settings: dict[str, float]
    value: float | None
    """The primary score as a fraction; None where it is undefined."""
    best: float | None
    """The arm's highest so far."""


Event = SearchStarted | SearchTold | StudyStarted | Notice | TrialStarted | TrialProgress | TrialDone | TrialFailed
