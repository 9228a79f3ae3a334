"""`noisytune compare --command`: from the command line to the report, and what goes with what."""

import shutil

import pytest
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.cli._running import Running
from noisytune.lab.engines import InlineEngine
from tests.support.scripts import HONEST, written


@pytest.fixture
def call(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Running, "workplace", lambda self: InlineEngine())
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.path, "weights")
    command = written(tmp_path / "code", HONEST)
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}

    def run(*options, command=command):
        return CliRunner().invoke(app, ["compare", "--command", command, *options], env=environment)

    return run


def test_a_command_becomes_evidence(call, tmp_path):
    options = ("--model", "weights", "--score", "eval_accuracy", "--seeds", "2")
    result = call(*options)
    assert result.exit_code == 0, result.output
    assert "weights on train.py (compared by eval_accuracy): 4 trials" in result.output
    assert "after 2 pairs" in result.output
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "report.html").is_file()
    again = call(*options, "--arm", "noisytune(0.3)")
    assert "4 of 6 trials are done already" not in again.output
    assert "noisytune(0.3)" in again.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "weights"], "--score must be given with a command"),
        (["--score", "f1"], "--model must be given with a command"),
        (["--score", "f1", "--model", "nowhere/at/all"], "there is no such directory"),
        (
            ["--score", "f1", "--model", "weights", "--epochs", "3"],
            "--epochs must be left out: a command trains by itself",
        ),
        (
            ["--score", "f1", "--model", "weights", "--task", "replies"],
            "--task must be left out: a command trains by itself",
        ),
        (
            ["--score", "f1", "--model", "weights", "--train-size", "3"],
            "--train-size must be left out: a command trains by itself",
        ),
        (["--score", "f1", "--model", "weights", "--launcher", "torchrun"], "--launcher must be left out"),
        (["--higher-is-better", "--lower-is-better", "--score", "f1"], "--higher-is-better and --lower-is-better say"),
        (["--score", "f1", "--model", "weights", "--env", "x"], "--env must be NAME=VALUE"),
    ],
)
def test_what_does_not_go_together_is_one_line(call, options, said):
    result = call(*options)
    assert result.exit_code == 2
    assert said in result.output


def test_a_score_goes_with_a_command(call):
    result = CliRunner().invoke(app, ["compare", "--score", "f1"])
    assert "--command must be given" in result.output


def test_a_failed_trial_is_the_exit_code(call, tmp_path):
    failing = HONEST.replace("out = Path", "if asked.seed == '1': raise SystemExit(3)\nout = Path")
    result = call(
        "--model", "weights", "--score", "eval_accuracy", "--seeds", "2", command=written(tmp_path / "c", failing)
    )
    assert result.exit_code == 1
    assert "train.py-plain-seed1 failed: the command ended with code 3" in result.output
