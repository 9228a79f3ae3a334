"""The commands of a study that many processes run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.lab.store import Store
from noisytune.lab.studies.study import Study
from noisytune.records import FailureRecord
from tests.support.runners import cheap_record


def noisytune(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_status_shows_how_far_a_folder_is(tiny_study: Study, tmp_path: Path) -> None:
    store, (first, second, third, fourth) = Store(tmp_path), tiny_study.plan
    store.write_study(tiny_study.record)
    store.write(cheap_record(first))
    store.write_failure(FailureRecord(second.key, "error", f"{second.label} failed: \x1b[31mred", "one\ntwo\x07"))
    assert store.claim(third.key)
    shown = noisytune("status", tmp_path)
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0] == "tiny on tiny-bert: 1 of 4 trials done, 1 running, 1 failed, 2 missing"
    assert lines[1] == "  done in about < 1 s, if as many run as now"
    assert lines[2].startswith(f"  {third.label}: process ")
    assert lines[3:] == [f"  failed: {second.label} failed: \\x1b[31mred", "    one", "    two\\x07"]
    told = json.loads(noisytune("status", tmp_path, "--json").output)["studies"]
    assert [(one["planned"], one["done"], one["missing"]) for one in told] == [(4, 1, 2)]
    assert told[0]["failed"][0]["last_words"] == "one\ntwo\x07"
    store.release(third.key)
    for trial in (second, third, fourth):
        store.write(cheap_record(trial))
    assert noisytune("status", tmp_path, "--watch").output.splitlines()[0].endswith("4 of 4 trials done, 0 running")


def test_what_makes_no_sense_is_one_line(tiny_study: Study, tmp_path: Path) -> None:
    for arguments, code, said in (
        (["status", tmp_path / "nowhere"], 2, "there is no such folder"),
        (["status", tmp_path], 1, "holds no study"),
        (["status", tmp_path, "--json", "--watch"], 2, "do not go together"),
        (["work", tmp_path], 1, "holds no plan: write one with  noisytune plan STUDY.yaml"),
        (["work", tmp_path, "--part", "3/2"], 2, "part must be i/n"),
        (["work", tmp_path, "--part", "1/2", "--claim"], 2, "give one of them"),
        (["work", tmp_path, "--trial-timeout", "0"], 2, "trial-timeout must be a number of seconds > 0"),
        (["plan", tmp_path / "no.yaml", "--out", tmp_path / "run"], 2, "there is no such file"),
    ):
        found = noisytune(*arguments)
        assert found.exit_code == code, arguments
        (line,) = found.stderr.splitlines()
        assert said in line


@pytest.mark.slow
def test_a_study_is_planned_worked_on_and_reported(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        f"model: {tiny.path}\ntasks: [{{task: topics, train_size: 40, dev_size: 30}}]\narms: [noisytune]\nseeds: 2\n"
        "training: {epochs: 1, max_length: 32, learning_rate: 1.0e-3}\n"
    )
    planned = noisytune("plan", tmp_path / "study.yaml", "--out", tmp_path / "run")
    assert planned.exit_code == 0, planned.output
    assert "4 trials are planned" in planned.output
    again = json.loads(noisytune("plan", tmp_path / "study.yaml", "--out", tmp_path / "run", "--json").stdout)
    assert (again["schema"], again["studies"][0]["planned"]) == ("noisytune.plan", 4)
    assert json.loads(noisytune("status", tmp_path / "run", "--json").output)["studies"][0]["missing"] == 4
    for part, done in (("1/2", 2), ("2/2", 4)):
        assert noisytune("work", tmp_path / "run", "--workers", 1, "--part", part).exit_code == 0
        assert json.loads(noisytune("status", tmp_path / "run", "--json").output)["studies"][0]["done"] == done
    assert noisytune("report", tmp_path / "run").exit_code == 0
