"""A study of trials that train nothing, processes that run it, and what kills them."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from noisytune.lab.store import Store
from noisytune.lab.studies.study import Study
from tests.support.engines import processes_with, settled
from tests.support.runners import Cheap, cheap_record

ROOT = Path(__file__).parents[2]
"""Where the package of the tests lies."""


@dataclass
class Bench:
    """A study of cheap trials, and the processes that run it."""

    study: Study
    folder: Path
    seconds: float
    """Of a trial."""
    mode: str = "run"
    """Of `tests.support.drive`."""
    began_by: str = ""
    """What the environment of workers holds, where the driver does not start them."""

    def __post_init__(self) -> None:
        self.run, self.began = self.folder / "run", self.folder / "began"
        self.mark = f"NOISYTUNE_TEST={uuid.uuid4()}"
        (self.folder / "study.pickle").write_bytes(pickle.dumps(self.study))
        (self.folder / "torch.py").write_text("raise ImportError('not here')")
        self.kills = Counter[str]()

    def start(self, mode: str = "") -> subprocess.Popen[bytes]:
        name, _, value = self.mark.partition("=")
        path = os.pathsep.join([str(self.folder), str(ROOT), *sys.path])
        arguments = [mode or self.mode, self.folder / "study.pickle", self.run, self.began, self.seconds]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.drive", *map(str, arguments)],
            env=os.environ | {name: value, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def workers(self) -> list[int]:
        """Workers that live now, by whoever they were started."""
        found = []
        for pid in processes_with(self.began_by or self.mark):
            try:
                if b"NOISYTUNE_WORKER=" in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
            except OSError:
                continue
        return found

    def kill(self, pid: int, whom: str) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
            self.kills[whom] += 1
        except ProcessLookupError:
            pass

    def finish(self, mode: str = "") -> None:
        """Undisturbed, to the end: a trial whose worker was killed twice is tried again by the next run."""
        for _ in range(5):
            assert self.start(mode).wait(300) == 0
            if len(Store(self.run).index()) == len(self.study.plan):
                return

    def check(self) -> str:
        """See that the end is that of an undisturbed run. Returns the counts."""
        assert settled(self.mark, 0) == []
        store = Store(self.run)
        with store.lock():  # clears away what the killed ones left
            pass
        records = store.records(trial.key for trial in self.study.plan)
        assert len(records) == len(self.study.plan)
        for trial, record in zip(self.study.plan, records, strict=True):
            expected = cheap_record(trial)
            bare = {"environment": {}, "outputs_digest": ""}
            assert replace(record, **bare) == replace(expected, **bare)
            assert (record.predictions, record.references) == (expected.predictions, expected.references)
        stored = {
            trial.label: (self.run / "trials" / f"{trial.key}.json").stat().st_ctime_ns for trial in self.study.plan
        }
        begun = Cheap(self.began).begun()
        late = [label for label, when in begun if when > stored[label]]
        assert late == []
        assert store.failures() == {}
        assert not list((self.run / "trials").glob(".noisytune*"))
        assert not list((self.run / "claims").glob("*.json"))
        killed = ", ".join(f"{number} {whom} killed" for whom, number in self.kills.items())
        return (
            f"{len(records)} trials: {len(begun)} begun, {len(records)} stored, {killed}, "
            f"{len(late)} trained after they were stored"
        )


def kill_drivers(bench: Bench, times: int) -> None:
    """Each at a random moment, some before they have stored anything, so that the study lasts for all of them."""
    draw = random.Random(0)
    while (left := times - bench.kills["drivers"]) > 0:
        driver, before = bench.start(), _stored(bench)
        wanted = int(len(bench.study.plan) - before > 2 * left)
        while driver.poll() is None and _stored(bench) < before + wanted:
            time.sleep(0.01)
        time.sleep(draw.random() * (bench.seconds if wanted else 3 * bench.seconds))
        assert driver.poll() is None
        bench.kill(driver.pid, "drivers")
        driver.wait()


def _stored(bench: Bench) -> int:
    return len(Store(bench.run).index())


def kill_workers(bench: Bench, times: int) -> None:
    """Workers of a running driver, one after the other; whoever is killed twice at a trial is run by the next run."""
    draw = random.Random(1)
    while bench.kills["workers"] < times and _stored(bench) < len(bench.study.plan):
        driver = bench.start()
        while driver.poll() is None and bench.kills["workers"] < times:
            time.sleep(draw.random() * 4 * bench.seconds)
            if workers := bench.workers():
                bench.kill(draw.choice(workers), "workers")
        driver.wait(300)


def kill_some_that_work(bench: Bench, processes: int, killed: int) -> None:
    draw = random.Random(2)
    Store(bench.run).write_study(bench.study.record)
    crowd = [bench.start("work") for _ in range(processes)]
    for one in crowd[:killed]:
        while _stored(bench) < 2:
            time.sleep(0.01)
        time.sleep(draw.random() * 3 * bench.seconds)
        bench.kill(one.pid, "processes of noisytune work")
    assert [one.wait(300) for one in crowd[killed:]] == [0] * (processes - killed)
    for one in crowd[:killed]:
        one.wait()
