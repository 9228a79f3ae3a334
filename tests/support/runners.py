"""A runner that trains nothing: its records follow from the settings, and it fails as it is told."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord


@dataclass(frozen=True)
class Cheap:
    """Notes in a file which trials it began, one line each."""

    began: Path
    seconds: float = 0.0
    """Of a trial."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """What goes wrong, by a trial's label."""

    def prepare(self, task: Any) -> tuple[str, ...]:
        return ()

    def check(self, trial: Trial, arms: Any) -> tuple[str, ...]:
        return ()

    def run(self, training: Trial, trials: Sequence[Trial], on_step: Any) -> Iterator[TrialRecord]:
        fault = self.faults.get(training.label)
        times = self.labels().count(training.label)
        with self.began.open("a") as stream:
            stream.write(f"{training.label} {time.time_ns()}\n")
        on_step(1, 2, 0.7)
        time.sleep(self.seconds)
        if fault == "error":
            raise ValueError("first line\nsecond line")
        if fault == "no text":  # as names of files in another encoding are
            raise ValueError("first line: caf\udce9")
        if fault == "memory" or (fault == "memory once" and not times):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if fault == "killed once" and not times:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            time.sleep(600)
        for trial in trials:
            yield cheap_record(trial, nan=fault == "nan")

    def calibrate(self, trial: Trial, tasks: Any) -> Any:
        raise NotImplementedError

    def labels(self) -> list[str]:
        """Of the trials that were begun, in order, however often."""
        return [label for label, _ in self.begun()]

    def begun(self) -> list[tuple[str, int]]:
        """The same, each with the time, nanoseconds."""
        lines = self.began.read_text().splitlines() if self.began.exists() else []
        return [(label, int(when)) for label, when in map(str.split, lines)]


class Importing(Cheap):
    """Its workers import what a training with transformers needs."""

    warm_up = staticmethod(TransformersRunner.warm_up)


@dataclass(frozen=True)
class Noting(Cheap):
    """Looks at arms and makes tokens as long as a trial takes, and notes in which processes it does what."""

    def prepare(self, task: Any) -> tuple[str, ...]:
        self._note("prepare")
        return ()

    def check(self, trial: Trial, arms: Any) -> tuple[str, ...]:
        self._note("check")
        return ()

    def run(self, training: Trial, trials: Sequence[Trial], on_step: Any) -> Iterator[TrialRecord]:
        self._note("run")
        return super().run(training, trials, on_step)

    def _note(self, what: str) -> None:
        with self.began.with_name("processes").open("a") as stream:
            stream.write(f"{what} {os.getpid()}\n")
        if what != "run":
            time.sleep(self.seconds)

    def processes(self) -> dict[str, set[str]]:
        """Which did what."""
        found: dict[str, set[str]] = {}
        for what, process in map(str.split, self.began.with_name("processes").read_text().splitlines()):
            found.setdefault(what, set()).add(process)
        return found


def cheap_record(trial: Trial, nan: bool = False) -> TrialRecord:
    """What comes out of a trial: a function of its settings."""
    draw = random.Random(trial.key)
    predictions = np.array([draw.randrange(2) for _ in range(20)], float)
    references = np.array([draw.randrange(2) for _ in range(20)], float)
    score = float((predictions == references).mean())
    scores = {"accuracy": float("nan") if nan else score}
    return TrialRecord(
        key=trial.key,
        settings=trial.settings,
        status="ok",
        scores=scores,
        loss_curve=[0.7, 0.6],
        timing={"train": 0.1, "total": 0.1},
        applied={},
        environment={"pid": os.getpid()},
        evaluations={"dev": {"status": "ok", "scores": scores}},
        outputs={"dev/predictions": predictions, "dev/references": references},
    )
