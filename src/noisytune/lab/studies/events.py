"""What a running study tells whoever shows it: its own events, and those of its trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from noisytune.lab.trials.events import Notice, TrialEvent
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


Event = SearchStarted | SearchTold | StudyStarted | TrialEvent


def each_notice_once(on_event: Callable[[Event], None]) -> Callable[[Event], None]:
    """The same listener, told of the same notice of many trials once."""
    said = set[str]()

    def told(event: Event) -> None:
        if isinstance(event, Notice):
            if event.text in said:
                return
            said.add(event.text)
        on_event(event)

    return told
