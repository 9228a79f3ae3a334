"""A run folder for other programs, and two that are made into one."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.errors import ConfigError, NotFoundError, RunFolderError
from noisytune.lab.store import Store
from noisytune.lab.studies.export import FORMATS, export
from noisytune.lab.studies.join import join
from noisytune.lab.studies.study import Study
from noisytune.records import FailureRecord
from tests.support.runners import cheap_record


def filled(study: Study, folder: Path, some: slice = slice(None)) -> Store:
    store = Store(folder)
    store.write_study(study.record)
    for trial in study.plan[some]:
        store.write(cheap_record(trial))
    return store


def test_every_trial_is_a_row(tiny_study: Study, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet is read back with it")
    store, last = filled(tiny_study, tmp_path / "run", slice(3)), tiny_study.plan[3]
    store.write_failure(FailureRecord(last.key, "error", "=1+1\x1b[31m", "last words"))
    for kind in FORMATS:
        assert export(tmp_path / "run", kind, tmp_path / "out" / f"trials.{kind}") == 4
    with (tmp_path / "out" / "trials.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    table = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    for line, row, trial in zip(lines, table, tiny_study.plan, strict=True):
        assert (line["task"], line["arm"], int(line["seed"]), line["key"]) == (
            "topics",
            trial.arm,
            trial.seed,
            trial.key,
        )
        assert (row["task"], row["arm"], row["seed"], row["key"]) == ("topics", trial.arm, trial.seed, trial.key)
    for line, row, trial in zip(lines[:3], table[:3], tiny_study.plan, strict=False):
        score = cheap_record(trial).scores["accuracy"]
        assert float(line["score"]) == float(line["dev/accuracy"]) == row["score"] == row["dev/accuracy"] == score
    assert (lines[3]["status"], lines[3]["score"], lines[3]["reason"]) == ("failed", "", "'=1+1\\x1b[31m")
    assert (table[3]["status"], table[3]["score"], table[3]["reason"]) == ("failed", None, "=1+1\x1b[31m")
    (whole,) = json.loads((tmp_path / "out" / "trials.json").read_text())
    assert whole["study"]["arms"] == ["plain", "noisytune(0.15)"]
    assert [one["key"] for one in whole["trials"] + whole["failed"]] == [trial.key for trial in tiny_study.plan]
    assert whole["trials"][0]["loss_curve"] == [0.7, 0.6]


def test_runs_of_mlflow_are_written_once(tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow itself makes of them is tested with its trackers."""
    from noisytune.lab.studies.export_mlflow import export_mlflow
    from noisytune.lab.trials import trackers

    class Run:
        keys: ClassVar[list[str]] = []
        logged: ClassVar[list[Any]] = []

        def __init__(self, tracker: Any, training: Any) -> None:
            self.keys.append(training.key)

        def log(self, values: Any, step: int) -> None:
            self.logged.append((dict(values), step))

        def end(self, well: bool) -> None:
            assert well

    class Client:
        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id=name)

        def search_runs(self, _: Any, max_results: int, page_token: Any) -> Any:
            class Page(list):  # type: ignore[type-arg]
                token = None

            return Page(SimpleNamespace(data=SimpleNamespace(tags={"key": key})) for key in Run.keys[:2])

    module: Any = ModuleType("mlflow")
    uris: list[str] = []
    module.set_tracking_uri, module.MlflowClient = uris.append, Client
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(trackers._RUNS, "mlflow", Run)
    monkeypatch.setattr(trackers, "find_spec", lambda _: True)
    filled(tiny_study, tmp_path)
    assert export_mlflow(tmp_path, "sqlite:///x.db") == 4
    assert Run.keys == [trial.key for trial in tiny_study.plan]
    assert Run.logged[:2] == [({"train/loss": 0.7}, 1), ({"train/loss": 0.6}, 2)]
    assert export_mlflow(tmp_path, "sqlite:///x.db") == 2
    assert uris == ["sqlite:///x.db"] * 2


def test_folders_that_ran_apart_become_one(with_arms: Callable[..., Study], tmp_path: Path) -> None:
    study = with_arms(0.1, seeds=(0, 1, 2))
    one = filled(study, tmp_path / "a", slice(3))
    other = filled(replace(study, seeds=(0, 1, 2, 3)), tmp_path / "b", slice(2, 7))
    last, both = replace(study, seeds=(3,)).plan[1], study.plan[2]
    other.write_failure(FailureRecord(last.key, "time", "too long"))
    damaged = tmp_path / "b" / "trials" / f"{study.plan[4].key}.json"
    damaged.write_text(damaged.read_text().replace('"ok"', '"fine"'))
    before = {file: file.read_bytes() for file in (tmp_path / "b").rglob("*") if file.is_file()}
    found = join(tmp_path / "a", tmp_path / "b")
    assert (found.copied, found.both, found.differing) == (3, 1, 0)
    assert [damaged.name in line for line in found.damaged] == [True]
    whole = Store(tmp_path / "a")
    assert whole.read(both.key) == one.read(both.key)
    assert len(whole.index()) == 6
    assert list(whole.failures()) == [last.key]
    recorded = whole.read_study()
    assert recorded is not None
    assert recorded.seeds == [0, 1, 2, 3]
    assert {file: file.read_bytes() for file in before} == before
    assert whole.records() == Store(tmp_path / "a").records()
    again = join(tmp_path / "a", tmp_path / "b")
    assert (again.copied, again.both) == (0, 4)


def test_the_name_and_the_margin_are_those_of_the_folder_that_is_added_to(tiny_study: Study, tmp_path: Path) -> None:
    """A verdict does not change because somebody else counts other differences as none."""
    filled(tiny_study, tmp_path / "a", slice(2))
    filled(replace(tiny_study, name="theirs", margin=9.0), tmp_path / "b", slice(2, 4))
    join(tmp_path / "a", tmp_path / "b")
    whole = Store(tmp_path / "a").read_study()
    assert whole is not None
    assert (whole.name, whole.margin) == (tiny_study.name, tiny_study.margin)


def test_what_cannot_be_one_is_refused_and_nothing_is_changed(tiny_study: Study, tmp_path: Path) -> None:
    filled(tiny_study, tmp_path / "a")
    filled(replace(tiny_study, training=replace(tiny_study.training, epochs=2)), tmp_path / "b")
    search = {"protocol": "clean", "sampler": "random", "budget": 1, "space": {}, "trained_on": 1, "chosen_on": 1}
    filled(replace(tiny_study, search=search | {"arms": []}), tmp_path / "searched")
    (tmp_path / "empty").mkdir()
    kept = sorted((file.name, file.read_bytes()) for file in (tmp_path / "a").rglob("*.json"))
    for other, error, said in (
        ("b", RunFolderError, "epochs is 1, not 2"),
        ("a", ConfigError, "are one folder"),
        ("empty", RunFolderError, "holds no study"),
        ("nowhere", NotFoundError, "no such folder"),
        ("searched", RunFolderError, "holds another search of settings, or none"),
    ):
        with pytest.raises(error, match=said):
            join(tmp_path / "a", tmp_path / other)
    assert sorted((file.name, file.read_bytes()) for file in (tmp_path / "a").rglob("*.json")) == kept


@pytest.mark.parametrize("changed", ["arm", "model"])
def test_another_trial_in_the_place_of_one_throws_none_away(tiny_study: Study, tmp_path: Path, changed: str) -> None:
    """An older release, or another name of the model, gives the trials other keys."""
    mine = filled(replace(tiny_study, seeds=(0, 1, 2)), tmp_path / "a")
    named = replace(tiny_study, model=replace(tiny_study.model, name="copy"))
    other = filled(named if changed == "model" else tiny_study, tmp_path / "b")
    if changed == "arm":
        record = other.read_study()
        assert record is not None
        older = [entry | {"key": entry["key"][::-1]} if entry["arm"] != "plain" else entry for entry in record.trials]
        other.write_study(replace(record, trials=older))
    kept = mine.study_file.read_bytes()
    arm = "plain" if changed == "model" else tiny_study.arms[1].name
    with pytest.raises(RunFolderError, match=rf"b: topics, {re.escape(arm)}, seed 0 is another trial there") as caught:
        join(mine.folder, other.folder)
    assert "\n" not in str(caught.value)
    assert mine.study_file.read_bytes() == kept
    assert len(mine.index()) == 6


def test_a_damaged_record_is_set_aside_where_the_other_folder_has_it_whole(tiny_study: Study, tmp_path: Path) -> None:
    filled(tiny_study, tmp_path / "a")
    other = filled(tiny_study, tmp_path / "b")
    damaged = tmp_path / "a/trials" / f"{tiny_study.plan[0].key}.json"
    damaged.write_text("{")
    found = CliRunner().invoke(app, ["merge", str(tmp_path / "a"), str(tmp_path / "b")], env={"COLUMNS": "200"})
    assert found.output.startswith("1 trials copied, 3 were in both\n")
    assert f"the record is kept as {damaged.name}.damaged" in found.output
    assert Store(tmp_path / "a").records() == other.records()
    assert damaged.with_name(f"{damaged.name}.damaged").read_text() == "{"


def test_the_commands(tiny_study: Study, tmp_path: Path) -> None:
    def noisytune(*arguments: Any) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})

    filled(tiny_study, tmp_path / "a", slice(2))
    filled(tiny_study, tmp_path / "b", slice(2, 4))
    assert noisytune("merge", tmp_path / "a", tmp_path / "b").output == "2 trials copied, 0 were in both\n"
    assert (
        noisytune("export", tmp_path / "a", "--out", tmp_path / "x.csv").output == f"4 trials: {tmp_path / 'x.csv'}\n"
    )
    for arguments, said in (
        (["export", tmp_path / "a", "--to", "xtreme", "--out", tmp_path], "needs --data-dir"),
        (["export", tmp_path / "a", "--data-dir", tmp_path, "--out", tmp_path], "goes with --to xtreme"),
    ):
        found = noisytune(*arguments)
        assert found.exit_code == 2
        assert said in found.stderr


def test_a_folder_that_cannot_be_written_is_reported_all_the_same(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's: results are shown, nothing is written in it, and the pages go where they may."""
    filled(tiny_study, tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    access, read_only = os.access, tmp_path / "run"

    def allowed(path: Any, mode: int) -> bool:
        return access(path, mode) and (Path(path), mode) != (read_only, os.W_OK)

    monkeypatch.setattr(os, "access", allowed)
    shown = CliRunner().invoke(app, ["report", str(tmp_path / "run")], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "--out DIR writes the report elsewhere" in shown.output
    assert sorted(tmp_path.rglob("*")) == before
    shown = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--out", str(tmp_path / "pages")])
    assert shown.exit_code == 0
    assert (tmp_path / "pages" / "report.html").exists()
    read_only = tmp_path / "pages"
    shown = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--out", str(read_only)], env={"COLUMNS": "200"})
    assert shown.exit_code == 1
    assert f"{read_only} cannot be written; give another --out" in shown.output


def test_a_disk_without_room_is_said_before_anything_runs(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noisytune.lab.studies.ready import about_room

    records = filled(tiny_study, tmp_path).records()
    assert about_room(tmp_path, tiny_study.plan, records) == ""
    for free, finished in ((1000, records), (1000, [])):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert "the 4 trials to run take about" in about_room(tmp_path, tiny_study.plan, finished)
    assert about_room(tmp_path / "nowhere", tiny_study.plan, []) != ""
    assert about_room(tmp_path, [], []) == ""
