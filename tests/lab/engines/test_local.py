"""Workers: jobs reach them, answers come back, and none outlives its owner."""

from __future__ import annotations

import os
import platform
import random
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
from noisytune.errors import ConfigError
from noisytune.lab.engines import JobFailed, LocalEngine
from noisytune.lab.engines._process import worker_environment
from noisytune.lab.engines.devices import Device, JobQueue, shared_out
from tests.support.engines import processes_with, settled


def run(engine: LocalEngine, *jobs: Any) -> list[Any]:
    answers: list[Any] = []
    engine.run(jobs, answers.append)
    return answers


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """What the environment of this process's children holds, and its own has not held from the beginning."""
    value = str(uuid.uuid4())
    monkeypatch.setenv("NOISYTUNE_TEST", value)
    return f"NOISYTUNE_TEST={value}"


def test_what_a_job_prints_does_not_disturb_the_answers(do: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with LocalEngine(1) as engine:
        assert run(engine, do("a", "chat"), do("b", "chat")) == ["chatted", "chatted"]
    assert capfd.readouterr() == ("", "")


def test_a_job_and_what_it_starts_have_nothing_to_read(do: Any) -> None:
    with LocalEngine(1) as engine:
        assert run(engine, do("a", "read", limit=30), do("b", "echo", "b")) == ["", "b"]


@pytest.mark.parametrize(
    ("number", "said", "cause"), [(signal.SIGKILL, "memory", "memory"), (signal.SIGSEGV, "SIGSEGV", "died")]
)
def test_a_worker_that_is_killed_is_reported_and_replaced(do: Any, number: int, said: str, cause: str) -> None:
    with LocalEngine(1) as engine:
        failure, after = run(engine, do("topics-plain-seed0", "die", number), do("b", "echo", "after"))
    assert after == "after"
    assert failure.cause == cause
    assert str(failure.error).startswith("topics-plain-seed0: ")
    assert said in str(failure.error)


def test_a_worker_whose_gpu_is_lost_takes_no_other_job(do: Any) -> None:
    """After an assertion that fails on the device, CUDA fails whatever comes, until the process ends."""
    with LocalEngine(1) as engine:
        first, _, same, lost, other = run(
            engine, do("a", "who"), do("b", "complain"), do("c", "who"), do("d", "lose_its_gpu"), do("e", "who")
        )
    assert first == same != other
    assert (lost.cause, str(lost.error)) == ("error", "d failed: IndexError: index out of range")


def test_the_last_words_of_a_worker_are_kept(do: Any) -> None:
    with LocalEngine(1) as engine:
        (failure,) = run(engine, do("a", "leave"))
    assert "code 3" in str(failure.error)
    assert "last words" in "".join(failure.error.__notes__)


def test_the_traceback_of_a_worker_that_ends_is_kept(do: Any) -> None:
    with LocalEngine(1) as engine:
        failure, after = run(engine, do("a", "give_up"), do("b", "echo", "after"))
    assert ("code 1" in str(failure.error), after) == (True, "after")
    assert "KeyboardInterrupt: by hand" in "".join(failure.error.__notes__)


def test_a_job_whose_time_is_up_is_given_up_with_all_that_it_started(do: Any, mark: str) -> None:
    began = time.monotonic()
    with LocalEngine(2) as engine:
        answers = run(engine, do("a", "have_children", limit=0.3), do("b", "echo", "b"), do("c", "echo", "c"))
        failure = next(answer for answer in answers if isinstance(answer, JobFailed))
        assert (failure.job.label, failure.cause) == ("a", "time")
        assert "given up after 0.3 s" in str(failure.error)
        assert {"b", "c"} <= {answer for answer in answers if isinstance(answer, str)}
        assert len(processes_with(mark)) == 2
    assert processes_with(mark) == []
    assert time.monotonic() - began < 60


def test_nothing_is_left_of_a_worker_that_died(do: Any, mark: str) -> None:
    """A child that holds its pipes open neither hides its death nor outlives it."""
    with LocalEngine(1) as engine:
        answers = run(engine, do("a", "have_children", signal.SIGKILL), do("b", "echo", "b"))
        assert [answer if isinstance(answer, str) else answer.cause for answer in answers] == ["asleep", "memory", "b"]
        assert len(processes_with(mark)) == 1


def test_a_worker_that_dies_while_it_waits_is_replaced(do: Any) -> None:
    with LocalEngine(2) as engine:
        engine.start()
        os.kill(engine._team[0]._process.pid, signal.SIGKILL)
        engine._team[0]._process.wait()
        answers = run(engine, *(do(str(i), "sleep", 0.05) for i in range(4)))
        assert [answer for answer in answers if answer == "slept"].count("slept") >= 3
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


@pytest.mark.parametrize(("name", "said"), [("begin", "yes"), ("begin_badly", None)])
def test_a_worker_begins_as_it_is_told_and_so_does_the_one_that_takes_its_place(do: Any, name: str, said: str) -> None:
    with LocalEngine(1) as engine:
        engine.start(first=getattr(sys.modules[do.__module__], name))
        before, failure, after = run(engine, do("a", "look", ("BEGUN",)), do("b", "leave"), do("c", "look", ("BEGUN",)))
    assert (before["BEGUN"], failure.cause, after["BEGUN"]) == (said, "died", said)
    assert before["pid"] != after["pid"]


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


def test_a_gpus_number_is_that_by_which_its_kind_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi counts by slot, CUDA by speed unless it is told otherwise."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert worker_environment(1, "2")["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_DEVICE_ORDER" not in worker_environment(1, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert "CUDA_DEVICE_ORDER" not in worker_environment(1, "2")


def test_workers_do_not_share_apples_gpu_unless_they_are_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr("noisytune.lab.engines.local.available_cores", lambda: 8)
    assert (LocalEngine().workers, LocalEngine().threads_per_worker, LocalEngine(3).workers) == (1, 8, 3)


def test_gpus_are_shared_out_one_after_the_other() -> None:
    gpus = [Device("0", "A100"), Device("1", "A100"), Device("2", "T4")]
    assert [one.gpu for one in shared_out(gpus, 8)] == ["0", "1", "2"]
    assert [one.gpu for one in shared_out(gpus, 8, trials_per_gpu=2)] == ["0", "1", "2"] * 2
    assert [one.gpu for one in shared_out(gpus, 8, 4, 2)] == ["0", "1", "2", "0"]
    assert shared_out([], 3) == [Device()] * 3
    with pytest.raises(ConfigError, match="workers must be at most 6: 3 GPUs with 2 trials each"):
        shared_out(gpus, 8, 7, 2)
    with pytest.raises(ConfigError, match="no GPU is visible"):
        shared_out([], 8, trials_per_gpu=2)


def test_a_trial_may_have_several_gpus() -> None:
    gpus = [Device(str(number), "A100") for number in range(5)]
    assert [one.gpu for one in shared_out(gpus, 8, gpus_per_trial=2)] == ["0,1", "2,3"]
    assert [one.gpu for one in shared_out(gpus, 8, workers=1, gpus_per_trial=5)] == ["0,1,2,3,4"]
    with pytest.raises(ConfigError, match="workers must be at most 2: 2 groups of 2 GPUs with 1 trials each"):
        shared_out(gpus, 8, 3, gpus_per_trial=2)
    with pytest.raises(ConfigError, match="gpus_per_trial is 6, and 5 GPUs are visible here"):
        shared_out(gpus, 8, gpus_per_trial=6)
    with pytest.raises(ConfigError, match="exclude each other"):
        shared_out(gpus, 8, trials_per_gpu=2, gpus_per_trial=2)


def test_a_pair_stays_on_one_kind_of_device(do: Any) -> None:
    """Whichever worker is free first, and however jobs are spread, jobs of one name see one kind; none is forgotten."""
    for seed in range(50):
        draw = random.Random(seed)
        jobs = [do(f"{pair} {arm}", "echo", together=str(pair)) for pair in range(20) for arm in range(3)]
        queue, kinds = JobQueue(jobs), [draw.choice(["A100", "T4", "L4"]) for _ in range(5)]
        seen: dict[str, set[str]] = {}
        done, idle = [], list(kinds)
        while idle:
            kind = idle.pop(draw.randrange(len(idle)))
            job = queue.next_for(kind, others=len(kinds))
            if job:
                seen.setdefault(job.together, set()).add(kind)
                done.append(job)
                idle = list(kinds)
        assert sorted(job.label for job in done) == sorted(job.label for job in jobs)
        assert all(len(found) == 1 for found in seen.values())


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
            engine.run([Do("a", "have_children"), Do("b", "have_children")], lambda message: print(message, flush=True))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_go_with_their_owner(folder_of_jobs: Path, number: int) -> None:
    mark = f"NOISYTUNE_TEST={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(folder_of_jobs)]
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
        found = settled(mark, 7)
        # As a terminal does: to the whole foreground group.
        os.killpg(driver.pid, number)
        assert driver.wait(30) == (130 if number == signal.SIGINT else -number)
        assert driver.stderr.read() == ""
    assert len(found) == 7
    assert settled(mark, 0) == []
