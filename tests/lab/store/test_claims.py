"""A claim is for one at a time; whoever dies, here or elsewhere, loses it, whatever the clocks say."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from noisytune._processes import Process
from noisytune.lab.store.claims import EXPIRE, Claims

KEY = "0123456789abcdef"


class Clock:
    """Seconds that pass when it is said."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def of_elsewhere(folder: Path, pid: int = 1) -> Path:
    """A claim by a process of another machine."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{KEY}.json"
    process = Process("node7", "another boot", pid, "5")
    file.write_text(json.dumps({"process": process.told, "since": "2026-01-01T00:00:00+00:00"}))
    return file


def test_a_claim_is_for_one_at_a_time_and_is_given_back(tmp_path: Path) -> None:
    one, other = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    assert other.state(KEY) == "free"
    assert one.take(KEY)
    assert not other.take(KEY)
    assert other.take("f" * 16)
    assert other.state(KEY) == "held"
    (claim,) = [claim for key, claim in other.all().items() if key == KEY]
    assert claim.process == Process.this()
    assert not claim.is_over
    other.give_back(KEY)  # not its own
    assert not other.take(KEY)
    one.give_back(KEY)
    assert other.take(KEY)
    for each in (one, other):
        each.give_back(KEY)
        each.give_back("f" * 16)
    assert list((tmp_path / "claims").iterdir()) == []


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_of_many_that_claim_at_once_one_gets_it(tmp_path: Path, monkeypatch: Any, links: bool) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    for key in (f"{number:016x}" for number in range(20)):
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda one, key=key: one.take(key), [Claims(tmp_path / "claims") for _ in range(8)]))
        assert sorted(got) == [False] * 7 + [True]
    assert not [file for file in (tmp_path / "claims").iterdir() if file.name.startswith(".")]


def test_a_process_of_this_machine_that_is_killed_loses_its_claim_at_once(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from noisytune.lab.store.claims import Claims
        print(Claims(Path(sys.argv[1])).take(sys.argv[2]), flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "claims"), KEY]
    claims = Claims(tmp_path / "claims")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert claims.state(KEY) == "held"
        assert not claims.take(KEY)
        other.kill()
    assert claims.all()[KEY].is_over
    assert claims.take(KEY)


@pytest.mark.parametrize("dated", [-1e6, 0.0, 1e6], ids=["long ago", "now", "in the future"])
def test_of_another_machine_what_counts_is_whether_it_is_heard_of(tmp_path: Path, clock: Clock, dated: float) -> None:
    """Clocks differ, and jump: what a claim is dated says nothing."""
    file = of_elsewhere(tmp_path / "claims")
    when = file.stat().st_mtime + dated
    os.utime(file, (when, when))
    claims = Claims(tmp_path / "claims", clock)
    assert not claims.take(KEY)
    assert claims.state(KEY) == "unknown"
    for beat in range(1, 9):  # touched by a clock that runs backwards
        clock.now += EXPIRE / 2
        os.utime(file, (when - beat, when - beat))
        assert claims.state(KEY) == "held"
        assert not claims.take(KEY)
    clock.now += EXPIRE / 2
    assert not claims.take(KEY)
    clock.now += EXPIRE
    assert claims.take(KEY)
    assert claims.all()[KEY].process == Process.this()
    claims.give_back(KEY)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": {"pid": "x"}}', "x" * 20_000])
def test_a_claim_that_says_nothing_expires_as_others_do(tmp_path: Path, clock: Clock, content: str) -> None:
    of_elsewhere(tmp_path / "claims").write_text(content)
    claims = Claims(tmp_path / "claims", clock)
    assert not claims.take(KEY)
    assert claims.all()[KEY].holder == "an unknown process"
    clock.now += EXPIRE + 1
    assert claims.take(KEY)
    claims.give_back(KEY)


def test_an_expired_claim_is_taken_over_by_one_only(tmp_path: Path, clock: Clock) -> None:
    """Both have seen it expire. What the faster one puts in its place is not the one that expired."""
    of_elsewhere(tmp_path / "claims")
    one, other = Claims(tmp_path / "claims", clock), Claims(tmp_path / "claims", clock)
    for each in (one, other):
        assert not each.take(KEY)
    clock.now += EXPIRE + 1
    assert other.state(KEY) == "free"
    assert one.take(KEY)
    assert not other._cleared(KEY)
    assert not other.take(KEY)
    one.give_back(KEY)
    assert list((tmp_path / "claims").iterdir()) == []


def test_what_is_claimed_is_touched_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisytune.lab.store.claims.BEAT", 0.01)
    claims, touched = Claims(tmp_path / "claims"), threading.Event()
    monkeypatch.setattr(
        os, "utime", lambda file: touched.set() if file == tmp_path / "claims" / f"{KEY}.json" else 1 / 0
    )
    assert claims.take(KEY)
    assert touched.wait(30)
    thread = claims._beating
    assert thread is not None
    claims.give_back(KEY)
    thread.join(30)
    assert not thread.is_alive()


def test_another_process_of_the_same_number_is_another_one() -> None:
    this = Process.this()
    assert not this.is_gone
    assert Process(this.host, this.place, this.pid, f"{this.began}1").is_gone
    assert not Process(this.host, "another boot", this.pid, "1").is_gone
    assert Process.of(this.told) == this
    for told in (None, {}, this.told | {"pid": True}, this.told | {"pid": -1}, this.told | {"host": 3}):
        assert Process.of(told) is None
