"""Whole studies in trackers as they come, each in a fresh folder: one experiment, one run a trial."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noisytune.lab.engines import LocalEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.events import Notice, TrialDone
from tests.support.runners import Cheap

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the trackers


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fresh, and where everything goes that is not told otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return tmp_path


def run(study: Study, folder: Path, report_to: str) -> tuple[set[tuple[str, str, str]], list[str]]:
    """Trials that are done, and what was said."""
    events: list[Any] = []
    with LocalEngine(2) as engine:
        run_study(
            study, Store(folder / "run"), engine, events.append, report_to=report_to, runner=Cheap(folder / "began")
        )
    done = [event.record for event in events if isinstance(event, TrialDone)]
    assert len(done) == len(study.plan)
    said = [event.text for event in events if isinstance(event, Notice) and report_to in event.text]
    return {(record.arm, record.task, str(record.seed)) for record in done}, said


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """MLflow's, on SQLite."""
    pytest.importorskip("mlflow", reason="mlflow is not installed: make test-trackers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "art")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *where], stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def expect_in_mlflow(address: str, study: Study, done: set[tuple[str, str, str]]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(address)
    names = {one.name: one.experiment_id for one in client.search_experiments()}
    assert set(names) <= {"Default", study.name}
    runs = client.search_runs([names[study.name]])
    assert {(r.data.tags["arm"], r.data.tags["task"], r.data.tags["seed"]) for r in runs} == done
    assert len(runs) == len(done)
    assert all(r.info.status == "FINISHED" and {"train/loss", "accuracy"} <= set(r.data.metrics) for r in runs)
    assert all(r.data.params["epochs"] == "1" for r in runs)


def test_mlflow_on_a_server(tiny_study: Study, folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    done, said = run(tiny_study, folder, "mlflow")
    assert not said
    expect_in_mlflow(server, tiny_study, done)


def test_mlflow_without_a_server(tiny_study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: make test-trackers")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/direct.db")
    done, said = run(tiny_study, folder, "mlflow")
    assert not said
    expect_in_mlflow(f"sqlite:///{folder}/direct.db", tiny_study, done)


def test_a_server_that_is_not_there_costs_one_warning(
    tiny_study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: make test-trackers")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    _, said = run(tiny_study, folder, "mlflow")
    (warning,) = said
    assert warning.startswith("mlflow failed (MlflowException")


def test_wandb_without_a_network(tiny_study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: make test-trackers")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    done, said = run(tiny_study, folder, "wandb")
    assert not said
    assert len(list((folder / "wandb").glob("offline-run-*"))) == len(done)


def test_trackio_on_this_machine(tiny_study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed: make test-trackers")
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "trackio"))
    done, said = run(tiny_study, folder, "trackio")
    assert not said
    (project,) = (folder / "trackio").glob("*.db")
    assert project.stem == tiny_study.name
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", folder / "trackio", raising=False)
    assert len(SQLiteStorage.get_runs(tiny_study.name)) == len(done)
