"""Trials that fail are written down, leave the others alone, and are tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noisytune.errors import ConfigError, TrialError
from noisytune.lab.engines import InlineEngine, JobFailed, LocalEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.attempts import MOST_LOSSES, Attempts, Rules
from noisytune.lab.studies.events import Event
from noisytune.lab.studies.run import USUAL, run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.events import TrialDone, TrialFailed
from noisytune.lab.trials.jobs import TrialJob
from noisytune.report import notes, render_html, render_markdown
from tests.support.runners import Cheap

FIRST, SECOND, NOISY = "topics-plain-seed0", "topics-plain-seed1", "topics-noisytune(0.15)-seed0"


def run(study: Study, folder: Path, engine: Any = None, rules: Rules = USUAL, **options: Any) -> tuple[Cheap, list]:
    events: list[Event] = []
    runner = Cheap(folder / "began", **options)
    folder.mkdir(exist_ok=True)
    run_study(study, Store(folder), engine or InlineEngine(), events.append, runner=runner, rules=rules)
    return runner, events


@pytest.mark.parametrize("fault", ["error", "nan", "no text"])
def test_a_failed_trial_is_written_down_and_tried_again_by_the_next_run(
    tiny_study: Study, tmp_path: Path, fault: str
) -> None:
    runner, events = run(tiny_study, tmp_path, faults={FIRST: fault})
    first = tiny_study.plan[0]
    assert sorted(runner.labels()) == sorted(trial.label for trial in tiny_study.plan)
    assert Store(tmp_path).index() == {trial.key for trial in tiny_study.plan[1:]}
    (failed,) = [event for event in events if isinstance(event, TrialFailed)]
    assert (failed.trial, failed.again) == (first, False)
    ((key, failure),) = Store(tmp_path).failures().items()
    assert (key, failure.cause) == (first.key, "error")
    assert failure.reason == failed.message.replace("\udce9", "\\udce9")
    assert failure.reason.startswith(f"{FIRST} failed: ")
    assert ("not JSON compliant" if fault == "nan" else "first line") in failure.reason
    assert "Traceback" in failure.last_words

    study, store = Store(tmp_path).read_study(), Store(tmp_path)
    assert study is not None
    told = notes(study, store.records(), store.failures().values())
    assert told[0].startswith(f"1 of 4 trials failed, and no pair has them: the same command tries them again. {FIRST}")

    run(tiny_study, tmp_path)
    assert runner.labels().count(FIRST) == 2
    assert len(runner.labels()) == 5
    assert Store(tmp_path).failures() == {}
    assert list((tmp_path / "failed").iterdir()) == []
    assert len(Store(tmp_path).index()) == 4


def test_the_report_tells_of_failures(tiny_study: Study, tmp_path: Path) -> None:
    from noisytune.report.evidence.pairs import gather
    from noisytune.report.page.view import view

    run(tiny_study, tmp_path, faults={FIRST: "error"})
    store = Store(tmp_path)
    study = store.read_study()
    assert study is not None
    found = view(gather(study, store.records(), store.failures().values()), drawn=False)
    assert [row["status"] for row in found["trials"]] == ["failed", "ok", "ok", "ok"]
    assert found["failed"][0]["last_words"][-1] == "second line"
    assert "Failed" not in render_html(study, store.records()) + render_markdown(study, store.records())


def test_where_nothing_came_out_the_first_failure_is_raised(tiny_study: Study, tmp_path: Path) -> None:
    faults = {trial.label: "error" for trial in tiny_study.plan}
    with pytest.raises(TrialError, match="topics-plain-seed0 failed: ValueError: first line"):
        run(tiny_study, tmp_path, faults=faults)
    assert len(Store(tmp_path).failures()) == 4


def test_fail_fast_stops_at_the_first(tiny_study: Study, tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="first line"):
        run(tiny_study, tmp_path, rules=Rules(fail_fast=True), faults={NOISY: "error"})
    assert Cheap(tmp_path / "began").labels() == [FIRST, NOISY]
    assert len(Store(tmp_path).index()) == len(Store(tmp_path).failures()) == 1


def test_want_of_memory_is_tried_once_more_when_all_others_are_done(tiny_study: Study, tmp_path: Path) -> None:
    runner, events = run(tiny_study, tmp_path, faults={FIRST: "memory once", SECOND: "memory"})
    assert runner.labels()[-2:] == [FIRST, SECOND]
    assert [runner.labels().count(trial.label) for trial in tiny_study.plan] == [2, 1, 2, 1]
    told = [(event.trial.label, event.again) for event in events if isinstance(event, TrialFailed)]
    assert told == [(FIRST, True), (SECOND, True), (SECOND, False)]
    assert [(one.cause, FIRST in one.reason) for one in Store(tmp_path).failures().values()] == [("memory", False)]
    assert {event.record.settings["training"]["batch_size"] for event in events if isinstance(event, TrialDone)} == {8}


def test_stopping_begins_no_more_trials_and_finishes_those_that_run(tiny_study: Study, tmp_path: Path) -> None:
    done: list[Any] = []
    rules = Rules(stopping=lambda: (tmp_path / "began").exists())
    _, done = run(tiny_study, tmp_path, InlineEngine(workers=2), rules=rules)
    assert len([event for event in done if isinstance(event, TrialDone)]) == len(Store(tmp_path).index()) == 2
    run(tiny_study, tmp_path)
    assert Cheap(tmp_path / "began").labels() == [trial.label for trial in tiny_study.plan]


def test_the_longest_trials_of_a_seed_come_first(with_arms: Callable[..., Study], tmp_path: Path) -> None:
    study = with_arms(0.1, seeds=(0, 1))
    topics = study.tasks[0]
    sizes = {"small": 20, "large": 40, "middle": 30}
    tasks = [replace(topics, name=name, train=topics.train.take(range(size))) for name, size in sizes.items()]
    runner, _ = run(replace(study, tasks=tuple(tasks)), tmp_path)
    order = [
        f"{task}-{arm}-seed{seed}"
        for seed in (0, 1)
        for task in ("large", "middle", "small")
        for arm in ("plain", "noisytune(0.1)")
    ]
    assert runner.labels() == order


@pytest.mark.usefixtures("quick_workers")
def test_workers_that_are_killed_and_hang_cost_their_own_trial_only(tiny_study: Study, tmp_path: Path) -> None:
    """Killed once, as for want of memory: done in the end. Hanging: given up, and done by the next run."""
    with LocalEngine(2, 1) as engine:
        faults = {FIRST: "killed once", NOISY: "hang"}
        runner, _ = run(tiny_study, tmp_path, engine, Rules(trial_timeout=1.0), faults=faults)
        assert [(one.cause, "given up after 1 s" in one.reason) for one in Store(tmp_path).failures().values()] == [
            ("time", True)
        ]
        run(tiny_study, tmp_path, engine)
    assert [runner.labels().count(trial.label) for trial in tiny_study.plan] == [2, 2, 1, 1]
    assert len(Store(tmp_path).index()) == 4
    assert Store(tmp_path).failures() == {}


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="trial_timeout must be a number of seconds > 0"):
        Rules(trial_timeout=0)


def test_a_damaged_failure_is_one_too(tiny_study: Study, tmp_path: Path) -> None:
    run(tiny_study, tmp_path, faults={FIRST: "error"})
    (file,) = (tmp_path / "failed").iterdir()
    file.write_text("{")
    (failure,) = Store(tmp_path).failures().values()
    assert "not a record" in failure.reason


def test_a_trial_is_tried_again_where_its_machine_is_lost_but_not_for_ever(tiny_study: Study, tmp_path: Path) -> None:
    asked: list[str] = []

    class Losing(InlineEngine):
        def run(self, jobs: Any, on_message: Any, *, alone: bool = False) -> None:
            for job in jobs:
                asked.append(job.training.key)
                on_message(JobFailed(job, TrialError("gone"), "lost"))

    trial, store = tiny_study.plan[0], Store(tmp_path)
    with store.lock():
        attempts = Attempts(store, Losing(), lambda _: None, Rules())
        attempts.run([TrialJob(trial, (trial,), None, None)])  # type: ignore[arg-type]
    assert len(asked) == 1 + MOST_LOSSES
    assert list(attempts.failed) == [trial.key]
