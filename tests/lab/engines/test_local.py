"""Workers: jobs reach them, answers come back, and none outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from noisytune._machine import available_cores, visible_gpus
from noisytune.errors import ConfigError, TrialError
from noisytune.lab.engines import LocalEngine
from tests.support.engines import processes_with


def run(engine: LocalEngine, *jobs: Any) -> list[Any]:
    answers: list[Any] = []
    engine.run(jobs, answers.append)
    return answers


def test_what_a_job_prints_does_not_disturb_the_answers(do: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with LocalEngine(1) as engine:
        assert run(engine, do("a", "chat"), do("b", "chat")) == ["chatted", "chatted"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "memory"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_worker_that_is_killed_is_reported(do: Any, number: int, said: str) -> None:
    with LocalEngine(1) as engine, pytest.raises(TrialError, match=said) as caught:
        run(engine, do("topics-plain-seed0", "die", number))
    assert str(caught.value).startswith("topics-plain-seed0: ")


def test_the_last_words_of_a_worker_are_kept(do: Any) -> None:
    with LocalEngine(1) as engine, pytest.raises(TrialError, match="code 3") as caught:
        run(engine, do("a", "leave"))
    assert "last words" in "".join(caught.value.__notes__)


def test_after_a_failure_an_engine_can_be_used_again(do: Any) -> None:
    with LocalEngine(1) as engine:
        with pytest.raises(TrialError):
            run(engine, do("a", "die", signal.SIGKILL))
        assert run(engine, do("b", "echo", "again")) == ["again"]


def test_an_exception_in_the_callback_stops_the_running_jobs(do: Any) -> None:
    def on_message(_: object) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with LocalEngine(2) as engine, pytest.raises(KeyboardInterrupt):
        engine.run([do("a", "sleep", 600), do("b", "sleep", 600)], on_message)
    assert time.monotonic() - began < 60


def test_workers_can_be_started_bit_by_bit(do: Any) -> None:
    with LocalEngine(3) as engine:
        for at_most, running in ((1, 1), (2, 2), (1, 2), (9, 3)):
            engine.start(at_most=at_most)
            assert len(engine._team) == running
        answers = run(engine, *(do(str(i), "look", ()) for i in range(60)))
    assert len({answer["pid"] for answer in answers}) == 3


def test_threads_are_counted_and_the_own_environment_is_left_alone(do: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = dict(os.environ)
    with LocalEngine(2, threads_per_worker=3) as engine:
        seen = run(engine, do("a", "look", ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HOME")))[0]
    assert (seen["OMP_NUM_THREADS"], seen["TOKENIZERS_PARALLELISM"]) == ("3", "false")
    assert seen["HOME"] == before.get("HOME")
    assert dict(os.environ) == before


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    engine = LocalEngine()
    assert (engine.workers, engine.threads_per_worker) == (available_cores(), 1)
    monkeypatch.setattr("noisytune.lab.engines.local.available_cores", lambda: 8)
    assert LocalEngine(3).threads_per_worker == 2
    assert LocalEngine(16).threads_per_worker == 1


def test_each_worker_sees_one_gpu(do: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    with LocalEngine() as engine:
        assert engine.workers == 2
        answers = run(engine, *(do(str(i), "look", ("CUDA_VISIBLE_DEVICES",)) for i in range(40)))
    seen = {answer["pid"]: answer["CUDA_VISIBLE_DEVICES"] for answer in answers}
    assert set(seen.values()) <= {"2", "5"}
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("bad", [{"workers": 0}, {"threads_per_worker": -1}])
def test_impossible_numbers_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        LocalEngine(**bad)


DRIVER = """
    import signal
    import sys
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or in the background of a script
    sys.path.insert(0, sys.argv[1])
    from jobs_for_workers import Do
    from noisytune.lab.engines import LocalEngine
    try:
        with LocalEngine(2) as engine:
            engine.run([Do("a", "sleep", 600), Do("b", "sleep", 600)], lambda message: print(message, flush=True))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_go_with_their_owner(do: Any, tmp_path: Path, number: int) -> None:
    mark = f"NOISYTUNE_TEST={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {name: value},
        start_new_session=True,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        assert [driver.stdout.readline() for _ in range(2)] == ["asleep\n", "asleep\n"]
        assert len(processes_with(mark)) == 3
        # As a terminal does: to the whole foreground group.
        os.killpg(driver.pid, number)
        assert driver.wait(30) == (130 if number == signal.SIGINT else -number)
        assert driver.stderr.read() == ""
    deadline = time.monotonic() + 30
    while processes_with(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(mark) == []
