"""A tracker that fails costs a warning, whatever fails in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from noisytune.lab.trials.trackers import Tracker


class Locked:
    """A callback that cannot write any more from its second event on."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_train_begin(self, *args: Any) -> str:
        self.seen.append("begin")
        return "control"

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("log")
        raise sqlite3.OperationalError("database is locked\nmore")

    on_train_end = on_log


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def tracker(tmp_path: Path, warnings: list[str]) -> Tracker:
    return Tracker("tensorboard", tmp_path / "logs", warnings.append)


def test_a_callback_that_fails_is_left_out_from_then_on(
    tracker: Tracker, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Locked()
    monkeypatch.setattr(Tracker, "_callback", lambda *_: inner)
    (callback,) = tracker.callbacks("topics-plain-seed0")
    assert callback.on_train_begin() == "control"
    for _ in range(3):
        assert callback.on_log(logs={}) is None
    assert callback.on_train_end() is None
    assert inner.seen == ["begin", "log"]
    (warning,) = warnings
    assert warning.startswith("tensorboard failed (OperationalError: database is locked):")
    assert "\n" not in warning


def test_a_tracker_that_cannot_begin_is_left_out(
    tracker: Tracker, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.logs.write_text("in the way")
    assert tracker.callbacks("a") == []
    monkeypatch.setattr(Tracker, "_callback", lambda *_: (_ for _ in ()).throw(ImportError("no protobuf")))
    assert tracker.callbacks("a") == []
    assert len(warnings) == 2
    assert "ImportError: no protobuf" in warnings[1]


def test_logs_are_written_through_no_link(tracker: Tracker, warnings: list[str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    tracker.logs.mkdir()
    (tracker.logs / "a").symlink_to(tmp_path / "elsewhere")
    assert tracker.callbacks("a") == []
    assert "is a link to" in warnings[0]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_run_that_cannot_be_ended_is_a_warning(
    warnings: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def finish() -> None:
        raise OSError("no network")

    monkeypatch.setattr("noisytune.lab.trials.trackers.find_spec", lambda _: True)
    monkeypatch.setattr("noisytune.lab.trials.trackers.import_module", lambda _: SimpleNamespace(finish=finish))
    Tracker("wandb", tmp_path, warnings.append).finish()
    assert warnings[0].startswith("wandb failed (OSError: no network)")
