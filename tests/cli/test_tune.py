"""noisytune tune as a user meets it: one real search, killed on the way, and one clear line for what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from noisytune.cli import app
from tests.cli.test_main import fails, noisytune
from tests.support.glue_files import write_glue

QUICK = ["--train-size", "40", "--dev-size", "30", "--max-length", "32", "--budget", "2", "--seeds", "1"]
SPACE = ["--learning-rate", "1e-3,2e-3", "--epochs", "1,2", "--batch-size", "8", "--noise-lambda", "0.1,0.2"]


@pytest.mark.slow
def test_a_search_is_killed_goes_on_and_reports(tiny, tmp_path):
    run = tmp_path / "run"
    command = ["tune", "--model", tiny.path, *QUICK, *SPACE, "--workers", 1, "--out", run]
    killed = subprocess.Popen(
        [sys.executable, "-m", "noisytune", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    while killed.poll() is None and len(list(run.glob("trials/*.json"))) < 2:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {file: file.read_bytes() for file in run.glob("trials/*.json")}
    assert 2 <= len(kept) < 6

    done = noisytune(*command)
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert f"{len(kept)} of 4 trials are done already" in said or f"{len(kept) - 1} of 4 trials" in said
    assert "protocol clean), chosen on 4 training examples held out from the other 36" in said
    assert "Selection alone: the best of 2 trials" in said
    assert len(list(run.glob("trials/*.json"))) == 6
    assert {file: file.read_bytes() for file in kept} == kept
    search = json.loads((run / "study.json").read_text())["search"]
    assert [len(arm["trials"]) for arm in search["arms"]] == [2, 2]

    page = (run / "report.html").read_text()
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code == 0
    assert (run / "report.html").read_text() == page
    assert "The search" in page
    refused = fails(1, *command, "--epochs", "1,3")
    assert "its epochs is [1, 2], not [1, 3]" in refused


@pytest.mark.slow
def test_glue_under_the_paper_protocol_with_tpe(tiny, tmp_path):
    arguments = ["--task", "glue/rte", "--data-dir", write_glue(tmp_path / "glue"), "--sampler", "tpe"]
    few = ["--protocol", "paper", "--budget", 1, "--seeds", 1, "--max-length", 32, "--workers", 1]
    done = noisytune("tune", "--model", tiny.path, *arguments, *few, *SPACE, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert "sampler tpe, protocol paper" in said
    assert "the same that are reported, which flatters every arm" in said
    assert len(list((tmp_path / "runs").glob("tune-glue-rte-*/optuna.db"))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--epochs", "1,two"], 2, "--epochs must be one or several, none twice, of: a whole number >= 1, got '1,two'"),
        (["--learning-rate", ""], 2, "--learning-rate must be one or several"),
        (["--sampler", "best"], 2, "--sampler must be one of random, grid, tpe, got 'best'"),
        (["--protocol", "dirty"], 2, "--protocol must be paper or clean, got 'dirty'"),
        (["--arm", "noisytune", "--arm", "noisytune(0.2)"], 2, "are the same: the search chooses their --noise-lambda"),
        (["--arm", "plain"], 2, "only the baseline is asked for"),
        (["--storage", "mysql+no://a:secret@b/c"], 2, "the storage of the search cannot be used"),
        (["--task", "glue"], 2, "tune searches one task at a time"),
        (["--task", "glue/rtee"], 2, "did you mean 'glue/rte'?"),
    ],
)
def test_one_line_for_what_goes_wrong(arguments, code, said, tmp_path):
    line = fails(code, "tune", *QUICK, *arguments, "--out", tmp_path / "run")
    assert said in line
    assert "secret" not in line
    assert not list(tmp_path.rglob("*.json"))
