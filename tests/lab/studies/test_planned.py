"""A study is planned once, and any number of processes work on it; what each sees is what was planned."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noisytune._pretrained import Model
from noisytune._processes import Process
from noisytune.errors import ConfigError, NotFoundError, RunFolderError
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.attempts import Rules
from noisytune.lab.studies.planned import PLAN, Part, plan, planned, work
from noisytune.lab.studies.status import status_of
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.events import Notice, TrialDone
from noisytune.records import FailureRecord
from tests.support.runners import Cheap

YAML = """
name: planned
model: {model}
tasks: [{{task: topics, train_size: 40, dev_size: 30}}]
arms: [noisytune]
seeds: 4
training: {{epochs: 1, max_length: 32, learning_rate: 1.0e-3}}
"""


@pytest.fixture(scope="module")
def run(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned study of eight trials, of which nothing has run. Its file is gone."""
    folder = tmp_path_factory.mktemp("planned")
    file = folder / "study.yaml"
    file.write_text(YAML.format(model=tiny.path))
    (study,) = plan(file, folder / "run", InlineEngine(), lambda _: None)
    assert len(study.plan) == 8
    file.unlink()
    return folder / "run"


@pytest.fixture
def fresh(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def work_on(folder: Path, began: Path, part: str | None = None, **faults: str) -> list[str]:
    """The labels of what one process ran."""
    (study,) = planned(folder)
    runner, before = Cheap(began, faults=faults), len(Cheap(began).labels())
    store, rules = Store(folder, study.file_name), Rules(wait_for_others=False)
    work(study, store, InlineEngine(), lambda _: None, Part.parse(part) if part else None, runner=runner, rules=rules)
    return runner.labels()[before:]


def test_a_plan_holds_the_study_and_its_tokens_and_has_run_nothing(run: Path) -> None:
    (study,) = planned(run)
    store = Store(run, study.file_name)
    assert store.read_study() == study.record
    assert store.index() == frozenset()
    assert len(list((run / "cache").iterdir())) == 1
    (found,) = status_of(run)
    assert (found.planned, found.done, found.missing, found.seconds_left) == (8, 0, 8, None)


def test_what_is_missing_is_run_once_and_parts_are_all_of_it(fresh: Path, tmp_path: Path) -> None:
    parts = [work_on(fresh, tmp_path / "began", f"{number}/3") for number in (1, 2, 3)]
    assert [len(part) for part in parts] == [4, 2, 2]
    for part in parts:  # pairs stay together
        assert {label.rpartition("seed")[2] for label in part if "plain" in label} == {
            label.rpartition("seed")[2] for label in part if "noisy" in label
        }
    assert work_on(fresh, tmp_path / "began") == []
    (found,) = status_of(fresh)
    assert (found.done, found.missing, found.running, found.seconds_left) == (8, 0, (), 0.0)
    assert not list((fresh / "claims").glob("*.json"))


def test_what_others_run_is_left_to_them_and_what_failed_is_tried_again(fresh: Path, tmp_path: Path) -> None:
    (study,) = planned(fresh)
    store, (first, second, *_) = Store(fresh, study.file_name), study.plan
    assert store.claim(first.key)
    ran = work_on(fresh, tmp_path / "began", **{second.label: "error"})
    assert first.label not in ran
    assert len(ran) == 7
    (found,) = status_of(fresh)
    assert [one.label for one in found.running] == [first.label]
    assert found.running[0].claim.process == Process.this()
    assert [one.label for one in found.failed] == [second.label]
    assert (found.done, found.missing, found.abandoned) == (6, 1, 0)
    assert found.seconds_left == pytest.approx(0.15)
    told = json.loads(json.dumps(found.told()))
    assert told["running"][0]["process"]["pid"] == os.getpid()
    assert told["failed"][0]["reason"].startswith(second.label)
    store.release(first.key)
    assert sorted(work_on(fresh, tmp_path / "began")) == sorted([first.label, second.label])
    assert status_of(fresh)[0].failed == ()


def test_a_trial_that_another_tries_in_vain_meanwhile_is_not_tried_at_once_again(fresh: Path, tmp_path: Path) -> None:
    (study,) = planned(fresh)
    store, last = Store(fresh, study.file_name), study.plan[-1]
    other = Store(fresh, study.file_name)

    def on_event(event: Any) -> None:
        if isinstance(event, TrialDone) and not other.failures():
            other.write_failure(FailureRecord(last.key, "error", "elsewhere", ended="2026"))

    runner = Cheap(tmp_path / "began")
    work(study, store, InlineEngine(), on_event, runner=runner)
    assert last.label not in runner.labels()
    assert len(runner.labels()) == 7
    assert work_on(fresh, tmp_path / "began") == [last.label]


def test_whoever_waits_takes_over_what_others_leave(fresh: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (study,) = planned(fresh)
    first, holder = study.plan[0], Store(fresh, study.file_name)
    assert holder.claim(first.key)
    monkeypatch.setattr("noisytune.lab.studies.attempts.POLL", 0.001)
    events: list[Any] = []

    def on_event(event: Any) -> None:
        events.append(event)
        if isinstance(event, Notice) and "waiting" in event.text:
            holder.release(first.key)

    runner = Cheap(tmp_path / "began")
    work(study, Store(fresh, study.file_name), InlineEngine(), on_event, runner=runner)
    assert runner.labels()[-1] == first.label
    assert len(runner.labels()) == 8
    assert Notice("1 trials are being run by other processes: waiting for them") in events


def test_what_is_not_what_was_planned_is_refused(fresh: Path, tmp_path: Path) -> None:
    file = fresh / PLAN
    kept = json.loads(file.read_text())
    for old, new, said in (
        ("train_size: 40", "train_size: 30", "task topics has other examples"),
        ("epochs: 1", "epochs: 2", "epochs is 1, not 2"),
        ("seeds: 4", "seeds: 5", "topics-plain-seed4 is not the trial that was planned"),
        ("name: planned", "name: another", "missing, though it was planned"),
    ):
        file.write_text(json.dumps(kept | {"content": kept["content"].replace(old, new)}))
        with pytest.raises(RunFolderError, match=said) as caught:
            planned(fresh)
        assert "\n" not in str(caught.value)
    for content, said in (("{", "corrupt"), ('{"format": 2}', "plan the study again"), ("[]", "corrupt")):
        file.write_text(content)
        with pytest.raises(RunFolderError, match=said):
            planned(fresh)
    file.unlink()
    with pytest.raises(RunFolderError, match=r"holds no plan: write one with  noisytune plan STUDY\.yaml"):
        planned(fresh)
    for read in (planned, status_of):
        with pytest.raises(NotFoundError, match="there is no such folder"):
            read(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="holds no study"):
        status_of(tmp_path)


def test_a_second_plan_leaves_no_study_of_the_first_without_one(tiny: Model, fresh: Path, tmp_path: Path) -> None:
    kept, file = (fresh / PLAN).read_bytes(), tmp_path / "study.yaml"
    file.write_text(YAML.format(model=tiny.path).replace("name: planned", "name: second"))
    with pytest.raises(RunFolderError, match="holds the plan of planned-tiny-bert: give another --out") as caught:
        plan(file, fresh, InlineEngine(), lambda _: None)
    assert "\n" not in str(caught.value)
    assert (fresh / PLAN).read_bytes() == kept
    assert list(Store(fresh).studies()) == ["planned-tiny-bert"]
    file.write_text(YAML.format(model=tiny.path).replace("seeds: 4", "seeds: 5"))
    (study,) = plan(file, fresh, InlineEngine(), lambda _: None)
    assert [one.seeds for one in planned(fresh)] == [study.seeds]
    assert len(study.plan) == 10


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "a/b", "1/0", "-1/3", "1/3/5"])
def test_parts_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"part must be i/n"):
        Part.parse(text)


def test_claims_of_processes_that_have_ended_are_told_as_such(fresh: Path) -> None:
    (study,) = planned(fresh)
    this = Process.this()
    store = Store(fresh, study.file_name)
    store.claims.folder.mkdir(exist_ok=True)
    for trial, process in zip(
        study.plan, (replace(this, began="0"), replace(this, host="node7", place="elsewhere")), strict=False
    ):
        (store.claims.folder / f"{trial.key}.json").write_text(json.dumps({"process": process.told, "since": "2026"}))
    (found,) = status_of(fresh)
    assert (found.abandoned, [one.claim.holder for one in found.running]) == (1, [f"process {os.getpid()} on node7"])


def test_no_training_is_in_two_parts(tiny_study: Study) -> None:
    """Where a task is scored by another one's training, both go to one part."""
    (task,) = tiny_study.tasks
    rider = replace(task, name="one", evaluate={"dev": task.train.take(range(40))}, trained_on=task)
    study = replace(tiny_study, tasks=(task, rider), seeds=(0, 1, 2))
    for of in (2, 3):
        parts = [Part(i, of).of_plan(study.plan) for i in range(1, of + 1)]
        trained = [{study.training_of(trial).key for trial in part} for part in parts]
        assert sorted(trial.key for part in parts for trial in part) == sorted(trial.key for trial in study.plan)
        assert sum(map(len, trained)) == len(set().union(*trained))
