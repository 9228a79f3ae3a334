"""An engine that notes what it is asked to train, and trains nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.events import Event
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.runner import Runner
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord


def a_record(trial: Any) -> TrialRecord:
    return TrialRecord(trial.key, trial.settings, "ok", {"accuracy": 0.5}, [1.0], {"total": 1.0}, {}, {})


class Ledger(InlineEngine):
    """An engine that notes how many workers were asked for. Its runner trains nothing, and may be interrupted."""

    def __init__(self, stop_after: int | None = None, behind: int = 0) -> None:
        """Answer a trial ``behind`` trials later, as several workers do."""
        super().__init__(workers=behind + 1)
        self.started: int | None = None
        self.ran: list[tuple[int, str, str]] = []
        self.stop_after = stop_after

    def start(self, at_most: int | None = None, first: Any = None) -> None:
        self.started = at_most


class Trains:
    """A runner that notes in a ledger what it was asked to train. Arms are checked on the real weights."""

    def __init__(self, ledger: Ledger, real: Runner) -> None:
        self.ledger = ledger
        self.check = real.check

    def prepare(self, task: Any) -> tuple[str, ...]:
        return ("a notice about tokens",)

    def run(self, training: Trial, trials: Sequence[Trial], on_step: Any) -> Iterator[TrialRecord]:
        if len(self.ledger.ran) == self.ledger.stop_after:
            raise KeyboardInterrupt
        self.ledger.ran.append((training.seed, training.task, training.arm))
        yield from map(a_record, trials)

    def calibrate(self, trial: Trial, tasks: Any) -> Any:
        raise NotImplementedError


def run(study: Study, folder: Path, **options: Any) -> tuple[Ledger, StudyRecord, list[Event]]:
    ledger, events = options.pop("engine", None) or Ledger(), list[Event]()
    runner = Trains(ledger, TransformersRunner.of(study.model, study.training.max_length, folder))
    return ledger, run_study(study, Store(folder), ledger, events.append, runner=runner, **options), events


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished trials, and what would change if one were written again."""
    found = {}
    for file in (folder / "trials").glob("*.json"):
        status = file.stat()
        found[file.stem] = (status.st_ino, status.st_mtime_ns)
    return found


def processes_with(mark: str) -> list[int]:
    """Processes whose environment holds ``mark``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def settled(mark: str, wanted: int) -> list[int]:
    """The processes with a mark, once they are so many: one that has just begun has no environment yet."""
    deadline = time.monotonic() + 30
    while len(found := processes_with(mark)) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
