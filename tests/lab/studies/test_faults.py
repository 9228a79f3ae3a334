"""Whatever is killed, a study comes to the same end, and nothing is trained once it is stored."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noisytune.errors import RunFolderError
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from tests.support.killing import Bench, kill_drivers, kill_some_that_work, kill_workers
from tests.support.runners import Cheap


@pytest.fixture
def bench(tiny_study: Study, tmp_path: Path) -> Any:
    def make(seeds: int, seconds: float) -> Bench:
        return Bench(replace(tiny_study, seeds=tuple(range(seeds))), tmp_path, seconds)

    return make


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
