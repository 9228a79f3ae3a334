"""How a study is stopped: once to finish what runs, twice at once; a terminal that is closed stops nothing."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from noisytune.lab.store import Store
from noisytune.lab.studies.study import Study
from tests.support.runners import Cheap

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("numbers", "code", "kept"),
    [
        ([signal.SIGTERM], 143, range(2, 4)),
        ([signal.SIGINT], 130, range(2, 4)),
        ([signal.SIGINT, signal.SIGINT], 130, range(1)),
        ([signal.SIGHUP], 0, range(6, 7)),
    ],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C twice", "SIGHUP"],
)
def test_a_study_that_is_stopped(
    tiny_study: Study, tmp_path: Path, numbers: list[signal.Signals], code: int, kept: range
) -> None:
    """To every process of the study, as clusters do."""
    seconds = 60 if len(numbers) > 1 else 0.5
    (tmp_path / "study.pickle").write_bytes(pickle.dumps(replace(tiny_study, seeds=(0, 1, 2))))
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    arguments = ["command", tmp_path / "study.pickle", tmp_path / "run", tmp_path / "began", seconds]
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        for line in driver.stdout:
            if line == "TrialProgress\n" and len(Cheap(tmp_path / "began").labels()) == 2:
                break
        driver.send_signal(numbers[0])
        while len(numbers) > 1 and driver.poll() is None:  # two that come at once are one
            time.sleep(1)
            driver.send_signal(numbers[1])
        said = driver.stdout.read()
        # A third one finds the study stopped, and the process on its way out.
        assert driver.wait(60) in (code, -signal.SIGINT if len(numbers) > 1 else code)
        told = driver.stderr.read()
    begun, store = Cheap(tmp_path / "began").labels(), Store(tmp_path / "run")
    assert len(store.index()) in kept
    assert not list((tmp_path / "run" / "claims").glob("*.json"))
    assert store.failures() == {}
    if code:
        how = "Interrupted" if len(numbers) > 1 else "Stopped"
        assert (
            told.splitlines(keepends=True)[0]
            == f"{how}. Finished trials are kept: the same command goes on from there.\n"
        )
        assert len(begun) == (2 if len(numbers) > 1 else len(store.index()))
        assert "Notice" in said or len(numbers) > 1
    else:
        assert told == ""


DRIVER = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
signal.signal(signal.SIGINT, signal.default_int_handler)  # or in the background of a script
import typer
from tests.support.drive import main
try:
    main(*sys.argv[1:])
except typer.Exit as left:
    sys.exit(left.exit_code)
"""
