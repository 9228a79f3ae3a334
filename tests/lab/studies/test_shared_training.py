"""Tasks that are trained on another one: one training gives several records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.events import TrialDone
from tests.support.engines import run


def transferred(task: TaskData, name: str) -> TaskData:
    """Another task that scores the model which is trained on this one."""
    return replace(task, name=name, evaluate={"dev": task.train.take(range(40))}, trained_on=task)


def test_tasks_that_share_a_training_are_trained_once(tiny_study: Study, tmp_path: Path) -> None:
    (task,) = tiny_study.tasks
    study = replace(tiny_study, tasks=(task, transferred(task, "one"), transferred(task, "two")), seeds=(0, 1))
    ledger, record, events = run(study, tmp_path)
    assert ledger.ran == [(seed, task.name, arm.name) for seed in (0, 1) for arm in study.arms]
    assert len(record.trials) == 3 * len(ledger.ran)
    assert sum(isinstance(event, TrialDone) for event in events) == len(record.trials)


def test_a_training_is_done_again_for_what_is_missing_alone(tiny_study: Study, tmp_path: Path) -> None:
    (task,) = tiny_study.tasks
    study = replace(tiny_study, tasks=(task, transferred(task, "one")))
    _, record, _ = run(study, tmp_path)
    lost = [entry for entry in record.trials if entry["task"] == "one" and entry["seed"] == 1]
    for entry in lost:
        (tmp_path / "trials" / f"{entry['key']}.json").unlink()
    ledger, _, events = run(study, tmp_path)
    assert ledger.ran == [(1, task.name, arm.name) for arm in study.arms]
    assert [event.record.key for event in events if isinstance(event, TrialDone)] == [entry["key"] for entry in lost]
    alone = replace(study, tasks=(transferred(task, "one"),))
    assert {trial.key for trial in alone.plan} == {t["key"] for t in record.trials if t["task"] == "one"}


def test_a_shared_training_gives_what_a_training_of_its_own_gives(tiny_study: Study, tmp_path: Path) -> None:
    """The same weights score both: examples that are in both come out the same, whoever paid for the training."""
    (task,) = tiny_study.tasks
    passenger = replace(transferred(task, "one"), evaluate={"dev": task.dev})
    records = []
    for folder, tasks in (("both", (task, passenger)), ("alone", (passenger,))):
        study = replace(tiny_study, tasks=tasks, seeds=(0,))
        with InlineEngine() as engine:
            run_study(study, Store(tmp_path / folder), engine, lambda event: None)
        records += Store(tmp_path / folder).records(trial.key for trial in study.plan)
    own, shared, alone = records[:2], records[2:4], records[4:]
    assert [one.predictions for one in own] == [one.predictions for one in shared]
    assert [one.predictions for one in shared] == [one.predictions for one in alone]
    assert [one.key for one in shared] == [one.key for one in alone]
    assert shared[0].timing["train"] == 0 < alone[0].timing["train"]
