"""What does a study cost beside its trials? Keeping a trial, asking how far a folder is, handing out 100,000 trials.

Nothing is trained. Trials are simulated: 1,000 workers in a time that is counted, not spent; a store in memory. The
efficiency of two real workers counts their start-up: trials sleep, of workers that import what a training with
transformers needs, and of workers that need nothing, as those of a command.

    python benchmarks/studies.py [--trials 100000] [--status 10000] [--seconds 3]
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from describe import machine

from noisytune._pretrained import Model
from noisytune.lab.engines import LocalEngine
from noisytune.lab.engines.devices import JobQueue
from noisytune.lab.engines.protocol import Job
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.status import status_of
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import Split, TaskData
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.events import TrialDone, TrialStarted
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.records import FailureRecord, StudyRecord, TrialRecord

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.runners import Cheap, Importing, cheap_record


class Simulated:
    """An engine whose trials take a random time that nobody waits for."""

    def __init__(self, workers: int) -> None:
        self.workers, self.now = workers, 0.0

    def start(self, at_most: int | None = None, first: Any = None) -> None: ...

    def close(self) -> None: ...

    def run(self, jobs: Iterable[Job], on_message: Callable[[Any], None], *, alone: bool = False) -> None:
        queue, draw, number = JobQueue(jobs), random.Random(0), itertools.count()
        busy: list[tuple[float, int, Any]] = []
        free = self.workers
        while True:
            while free and (job := queue.next_for("", others=self.workers)) is not None:
                free -= 1
                takes = draw.uniform(50, 150) if hasattr(job, "trials") else 0.0
                heapq.heappush(busy, (self.now + takes, next(number), job))
            if not busy:
                return
            self.now, _, job = heapq.heappop(busy)
            free += 1
            for trial in getattr(job, "trials", ()):
                on_message(TrialStarted(trial))
                on_message(TrialDone(cheap_record(trial)))


class InMemory:
    """A store that forgets everything in the end."""

    folder = cache_folder = logs_folder = Path(tempfile.gettempdir())

    def __init__(self) -> None:
        self.kept: dict[str, TrialRecord] = {}
        self.study: StudyRecord | None = None
        self.claimed: set[str] = set()

    def index(self) -> frozenset[str]:
        return frozenset(self.kept)

    def has(self, key: str) -> bool:
        return key in self.kept

    def read(self, key: str) -> TrialRecord:
        return self.kept[key]

    def records(self, keys: Iterable[str]) -> list[TrialRecord]:
        return [self.kept[key] for key in keys if key in self.kept]

    def write(self, record: TrialRecord) -> None:
        self.kept[record.key] = record

    def set_aside(self, key: str) -> Path:
        raise NotImplementedError

    def failures(self) -> dict[str, FailureRecord]:
        return {}

    def failure(self, key: str) -> FailureRecord | None:
        return None

    def write_failure(self, failure: FailureRecord) -> None: ...

    def claim(self, key: str) -> bool:
        self.claimed.add(key)
        return True

    def release(self, key: str) -> None:
        self.claimed.discard(key)

    def claim_state(self, key: str) -> str:
        return "held" if key in self.claimed else "free"

    def read_study(self) -> StudyRecord | None:
        return self.study

    def write_study(self, study: StudyRecord) -> None:
        self.study = study

    @contextmanager
    def lock(self) -> Iterator[str]:
        yield ""


def a_study(trials: int) -> Study:
    texts = Split((("one",), ("two",)), (0.0, 1.0))
    task = TaskData("task", "classification", "accuracy", ("no", "yes"), texts, {"dev": texts}, ())
    return Study(
        name="study",
        model=Model("model", Path("model"), "0123456789abcdef"),
        tasks=(task,),
        arms=(PLAIN, Arm.parse("noisytune")),
        seeds=range(trials // 2),
        training=TrainingSettings(learning_rate=2e-5),
        margin=1.0,
    )


def scheduler(trials: int) -> None:
    for number in (trials // 10, trials):
        began, used = perf_counter(), process_time()
        study, engine, store = a_study(number), Simulated(1000), InMemory()
        run_study(study, store, engine, lambda _: None, runner=Cheap(Path("began")))
        assert len(store.kept) == number
        ideal = number * 100 / 1000
        used = process_time() - used
        print(
            f"{number:>7,} trials on 1,000 workers: {1000 * used / number:.3f} ms of driver CPU a trial "
            f"({perf_counter() - began:.1f} s in all); simulated {engine.now:,.0f} s, ideal {ideal:,.0f} s"
        )


def storing(trials: int = 200) -> None:
    study = a_study(trials)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        store, records = Store(folder), list(map(cheap_record, study.plan))
        began, used = perf_counter(), process_time()
        for record in records:
            assert store.claim(record.key)
            store.write(record)
            store.release(record.key)
        each, cpu = (perf_counter() - began) / trials, (process_time() - used) / trials
    print(f"claim, store and release: {1000 * each:.2f} ms a trial, {1000 * cpu:.2f} ms of it CPU")


def status(trials: int) -> None:
    study = a_study(trials)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.write_study(study.record)
        (Path(folder) / "trials").mkdir()
        for trial in study.plan[: trials * 9 // 10]:
            # Without the fsync of a real store, which is what takes long.
            (Path(folder) / "trials" / f"{trial.key}.json").write_text(cheap_record(trial).to_json())
        for trial in study.plan[-50:]:
            store.claim(trial.key)
        began = perf_counter()
        (found,) = status_of(Path(folder))
        print(f"status of {found.planned:,} trials, {found.done:,} done: {perf_counter() - began:.2f} s")
        for trial in study.plan[-50:]:
            store.release(trial.key)


def efficiency(seconds: float, kind: type[Cheap]) -> None:
    study = a_study(20)
    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        with LocalEngine(2, 1) as engine:
            runner = kind(Path(folder) / "began", seconds)
            run_study(study, Store(Path(folder) / "run"), engine, lambda _: None, runner=runner)
        took, ideal = perf_counter() - began, 10 * seconds
    whose = "that import transformers" if kind is Importing else "of a command"
    print(
        f"20 equal trials of {seconds:g} s on 2 workers {whose}: {took:.1f} s, ideal {ideal:.1f} s: {ideal / took:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--status", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    print(machine())
    storing()
    status(asked.status)
    scheduler(asked.trials)
    for kind in (Cheap, Importing):
        efficiency(asked.seconds, kind)


if __name__ == "__main__":
    main()
