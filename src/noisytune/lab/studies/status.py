"""How far is a run folder? Done, running and by whom, failed, missing, and when it will be done. Trains nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisytune.errors import NotFoundError, RunFolderError
from noisytune.lab.store import Claim, Store
from noisytune.records import FailureRecord

SAMPLE = 200
"""Finished trials that are read to see how long one takes."""


@dataclass(frozen=True)
class OneRunning:
    """A trial that somebody runs."""

    key: str
    label: str
    claim: Claim


@dataclass(frozen=True)
class OneFailed:
    """A trial that failed, and waits for the next run."""

    label: str
    failure: FailureRecord


@dataclass(frozen=True)
class StudyStatus:
    """How far one study is."""

    name: str
    model: str
    file: str
    """Of the study in the run folder, without its ending."""
    planned: int
    done: int
    running: tuple[OneRunning, ...]
    failed: tuple[OneFailed, ...]
    """Without those that run again."""
    abandoned: int
    """Claimed by processes that have ended, or of which nothing is heard: others take them over."""
    seconds_left: float | None
    """At the present number of trials at a time; None where nothing runs or nothing is known."""

    @property
    def missing(self) -> int:
        """Trials that are neither done nor running, failed ones among them."""
        return self.planned - self.done - len(self.running)

    def told(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.name,
            "model": self.model,
            "file": self.file,
            "planned": self.planned,
            "done": self.done,
            "running": [
                {
                    "key": one.key,
                    "trial": one.label,
                    "process": one.claim.process and one.claim.process.told,
                    "since": one.claim.since,
                    "silent_seconds": round(one.claim.silent, 1),
                }
                for one in self.running
            ],
            "failed": [
                {
                    "key": one.failure.key,
                    "trial": one.label,
                    "cause": one.failure.cause,
                    "reason": one.failure.reason,
                    "last_words": one.failure.last_words,
                    "process": one.failure.process,
                    "ended": one.failure.ended,
                }
                for one in self.failed
            ],
            "abandoned": self.abandoned,
            "missing": self.missing,
            "seconds_left": self.seconds_left,
        }


def status_of(folder: Path) -> list[StudyStatus]:
    """How far the studies of a run folder are. Nothing is changed, and what is damaged counts as it is named.

    Raises:
        NotFoundError: there is no such folder.
        RunFolderError: it holds no study, or cannot be read.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: there is no such folder")
    store = Store(folder)
    studies = store.studies()
    if not studies:
        raise RunFolderError(f"{folder} holds no study: give a folder that noisytune plan, compare or run wrote")
    done, claims, failures = store.index(), store.claims.all(), store.failures()
    found = []
    for file, study in studies.items():
        labels = {entry["key"]: f"{entry['task']}-{entry['arm']}-seed{entry['seed']}" for entry in study.trials}
        mine = [key for key in labels if key in done]
        claimed = [(key, claims[key]) for key in labels if key in claims and key not in done]
        running = tuple(OneRunning(key, labels[key], claim) for key, claim in claimed if not claim.is_over)
        busy = {one.key for one in running}
        failed = tuple(OneFailed(labels[key], failures[key]) for key in labels if key in failures and key not in busy)
        found.append(
            StudyStatus(
                name=study.name,
                model=str(study.model["name"]),
                file=file,
                planned=len(labels),
                done=len(mine),
                running=running,
                failed=failed,
                abandoned=len(claimed) - len(running),
                seconds_left=_left(_seconds(store, mine), len(labels) - len(mine), len(running)),
            )
        )
    return found


def _seconds(store: Store, keys: list[str]) -> float | None:
    """What a trial takes on average, by a sample of those that are finished."""
    taken = list(_taken(store, keys[:: max(1, math.ceil(len(keys) / SAMPLE))]))
    return sum(taken) / len(taken) if taken else None


def _taken(store: Store, keys: Iterable[str]) -> Iterable[float]:
    for key in keys:
        with suppress(RunFolderError):  # whoever reads the record for its scores says so
            yield store.read(key).timing.get("total", 0.0)


def _left(seconds: float | None, missing: int, running: int) -> float | None:
    """Seconds until all is done, if as many run at a time as now; those that run are half done on average.

    >>> _left(10.0, 8, 2), _left(10.0, 0, 0), _left(10.0, 3, 0), _left(None, 3, 1)
    (35.0, 0.0, None, None)
    """
    if not missing:
        return 0.0
    if seconds is None or not running:
        return None
    return max(seconds / 2, (missing - running / 2) * seconds / running)
