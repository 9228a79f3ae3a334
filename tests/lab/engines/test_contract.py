"""What every engine does: in processes, or here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from noisytune.errors import ConfigError, DataError, TrialError
from noisytune.lab.engines import Engine, InlineEngine, JobFailed, LocalEngine, RayEngine

ENGINES = [LocalEngine, InlineEngine]
ON_A_CLUSTER = pytest.param(RayEngine, marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")])


@pytest.fixture(params=[*ENGINES, ON_A_CLUSTER])
def engine(request: pytest.FixtureRequest, do: Any) -> Iterator[Engine]:
    if request.param is RayEngine:
        request.getfixturevalue("ray_here")
    with request.param(workers=2) as engine:
        yield engine


def run(engine: Engine, *jobs: Any) -> list[Any]:
    answers: list[Any] = []
    engine.run(jobs, answers.append)
    return answers


def test_every_job_is_done_once_and_its_reports_come_first(engine: Engine, do: Any) -> None:
    assert sorted(run(engine, *(do(str(i), "echo", i) for i in range(20)))) == list(range(20))
    assert run(engine, do("c", "count", 5)) == [0, 1, 2, 3, 4, "counted"]
    assert run(engine) == []


def test_a_job_is_asked_for_only_when_a_worker_is_free(engine: Engine, do: Any) -> None:
    log: list[str] = []

    def jobs() -> Iterator[Any]:
        for i in range(6):
            log.append("asked")
            yield do(str(i), "echo", "done")

    engine.run(jobs(), log.append)
    unfinished = [log[: i + 1].count("asked") - log[: i + 1].count("done") for i in range(len(log))]
    assert max(unfinished) == engine.workers == 2
    assert log.count("done") == 6


def failures(answers: list[Any]) -> dict[str, JobFailed]:
    return {one.job.label: one for one in answers if isinstance(one, JobFailed)}


def test_a_failure_is_one_line_and_the_other_jobs_go_on(engine: Engine, do: Any) -> None:
    jobs = [do("topics-plain-seed0", "fail"), do("slow", "sleep", 0.1), do("b", "fail"), do("last", "echo", "last")]
    answers = run(engine, *jobs)
    assert {"slept", "last"} <= {answer for answer in answers if isinstance(answer, str)}
    failed = failures(answers)
    assert set(failed) == {"topics-plain-seed0", "b"}
    one = failed["topics-plain-seed0"]
    assert isinstance(one.error, TrialError)
    assert (one.job, one.cause) == (jobs[0], "error")
    assert str(one.error).startswith("topics-plain-seed0 failed: ValueError: first line")
    assert "\n" not in str(one.error)
    assert "second line" in "".join(one.error.__notes__)


@pytest.mark.parametrize(
    ("what", "value", "said"),
    [("exit", 3, "SystemExit: 3"), ("exit", None, "SystemExit"), ("say_nothing", 0, "Speech")],
)
def test_whatever_ends_a_job_is_its_failure(engine: Engine, do: Any, what: str, value: object, said: str) -> None:
    failure, after = run(engine, do("a", what, value)) + run(engine, do("b", "echo", "b"))
    assert (failure.cause, after) == ("error", "b")
    assert str(failure.error).startswith(f"a failed: {said}")


def test_an_error_raised_on_purpose_arrives_as_it_is(engine: Engine, do: Any) -> None:
    (failure,) = run(engine, do("a", "complain"))
    assert isinstance(failure.error, DataError)
    assert str(failure.error) == "column 'x' is empty"
    assert "Traceback" in "".join(failure.error.__notes__)


def test_want_of_memory_is_told_apart_and_a_job_may_run_alone(engine: Engine, do: Any) -> None:
    answers = run(engine, do("a", "run_out"), do("b", "echo", "b"))
    assert "b" in answers
    assert failures(answers)["a"].cause == "memory"
    together: list[Any] = []
    engine.run([do(str(i), "look", ()) for i in range(3)], together.append, alone=True)
    if not isinstance(engine, RayEngine):  # there each has a worker of its own, which goes before the next one comes
        assert len({answer["pid"] for answer in together}) == 1
    assert run(engine, do("c", "echo", "again")) == ["again"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_the_callback_goes_on_and_stops_the_rest(
    engine: Engine, do: Any, error: type[BaseException]
) -> None:
    seen: list[Any] = []

    def on_message(message: object) -> None:
        seen.append(message)
        raise error("mine")

    with pytest.raises(error, match="mine"):
        engine.run([do("a", "count", 3), do("b", "count", 3)], on_message)
    assert len(seen) == 1
    assert run(engine, do("c", "echo", "again")) == ["again"]


def test_starting_and_closing_may_be_repeated(engine: Engine, do: Any) -> None:
    engine.start()
    engine.start(at_most=1)
    assert run(engine, do("a", "echo", 1)) == [1]
    engine.close()
    engine.close()
    assert run(engine, do("b", "echo", 2)) == [2]


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_has_a_worker(kind: Callable[..., Engine]) -> None:
    with pytest.raises(ConfigError, match="workers"):
        kind(workers=0)
