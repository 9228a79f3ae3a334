"""Whatever is killed, a study comes to the same end, and nothing is trained once it is stored."""

from __future__ import annotations

import errno
import json
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
from typing import Any

import pytest

from noisytune.errors import RunFolderError
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from tests.lab.studies.conftest import ROOT
from tests.support.engines import processes_with, settled
from tests.support.runners import Cheap, cheap_record


@dataclass
class Bench:
    """A study of cheap trials, and the processes that run it."""

    study: Study
    folder: Path
    seconds: float
    """Of a trial."""

    def __post_init__(self) -> None:
        self.run, self.began = self.folder / "run", self.folder / "began"
        self.mark = f"NOISYTUNE_TEST={uuid.uuid4()}"
        (self.folder / "study.pickle").write_bytes(pickle.dumps(self.study))
        (self.folder / "torch.py").write_text("raise ImportError('not here')")
        self.kills = Counter[str]()

    def start(self, mode: str) -> subprocess.Popen[bytes]:
        name, _, value = self.mark.partition("=")
        path = os.pathsep.join([str(self.folder), str(ROOT), *sys.path])
        arguments = [mode, self.folder / "study.pickle", self.run, self.began, self.seconds]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.drive", *map(str, arguments)],
            env=os.environ | {name: value, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def workers(self) -> list[int]:
        """Workers of the local engine that live now."""
        found = []
        for pid in processes_with(self.mark):
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

    def finish(self, mode: str = "run") -> None:
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


@pytest.fixture
def bench(tiny_study: Study, tmp_path: Path) -> Any:
    def make(seeds: int, seconds: float) -> Bench:
        return Bench(replace(tiny_study, seeds=tuple(range(seeds))), tmp_path, seconds)

    return make


def kill_drivers(bench: Bench, times: int) -> None:
    """Each at a random moment, some before they have stored anything, so that the study lasts for all of them."""
    draw = random.Random(0)
    while (left := times - bench.kills["drivers"]) > 0:
        driver, before = bench.start("run"), _stored(bench)
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
        driver = bench.start("run")
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


def test_a_driver_that_is_killed(bench: Any) -> None:
    one = bench(3, 0.05)
    kill_drivers(one, 1)
    one.finish()
    sys.stdout.write(one.check())


def test_three_that_work_on_one_folder_one_of_which_is_killed(bench: Any) -> None:
    one = bench(6, 0.1)
    kill_some_that_work(one, 3, 1)
    one.finish("work")
    sys.stdout.write(one.check())


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_drivers, kill_workers])
def test_thirty_kills_of_a_study_of_forty(bench: Any, kill: Any) -> None:
    one = bench(20, 0.3)
    kill(one, 30)
    one.finish()
    sys.stdout.write(one.check())


@pytest.mark.slow
def test_eight_that_work_on_one_folder_three_of_which_are_killed(bench: Any) -> None:
    one = bench(20, 0.3)
    kill_some_that_work(one, 8, 3)
    one.finish("work")
    sys.stdout.write(one.check())


@pytest.mark.parametrize("after", [0, 3, 4, 7, 11, 15])
def test_a_disk_that_is_full_in_the_middle(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Nothing half written counts as done, and with room again the study goes on. A trial takes four steps to keep."""
    synced, fsync = 0, os.fsync

    def full(handle: int) -> None:
        nonlocal synced
        synced += 1
        if synced > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    runner = Cheap(tmp_path / "began")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="no space left: free some and run the"):
        run_study(tiny_study, Store(tmp_path / "run"), InlineEngine(), lambda _: None, runner=runner)
    monkeypatch.undo()
    kept = Store(tmp_path / "run").records()
    run_study(tiny_study, Store(tmp_path / "run"), InlineEngine(), lambda _: None, runner=runner)
    assert len(Store(tmp_path / "run").records()) == len(tiny_study.plan)
    assert all(runner.labels().count(f"{one.task}-{one.arm}-seed{one.seed}") == 1 for one in kept)
    assert not list((tmp_path / "run").rglob(".noisytune*"))


def test_a_clock_that_jumps_back(tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour back at every look: nothing waits, nothing is run twice."""
    now = time.time()

    def back() -> float:
        nonlocal now
        now -= 3600
        return now

    runner = Cheap(tmp_path / "began")
    monkeypatch.setattr(time, "time", back)
    run_study(tiny_study, Store(tmp_path), InlineEngine(), lambda _: None, runner=runner)
    run_study(replace(tiny_study, seeds=(0, 1, 2)), Store(tmp_path), InlineEngine(), lambda _: None, runner=runner)
    monkeypatch.undo()
    assert Counter(runner.labels()).most_common(1)[0][1] == 1
    assert len(json.loads((tmp_path / "study.json").read_text())["trials"]) == len(runner.labels()) == 6
