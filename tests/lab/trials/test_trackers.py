"""What a tracker is told, and that one that fails costs a warning, whatever fails in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from noisytune.errors import ConfigError, MissingExtraError, TrialError
from noisytune.lab.studies.study import Study
from noisytune.lab.trials import trackers
from noisytune.lab.trials.events import Notice, TrialDone
from noisytune.lab.trials.jobs import TrialJob
from noisytune.lab.trials.trackers import Tracker
from noisytune.lab.trials.trial import Trial
from tests.support.runners import Cheap, cheap_record


class Watched:
    """A run of a tracker that notes what it is told, and fails where it is asked to."""

    fails: ClassVar[tuple[str, ...]] = ()
    told: ClassVar[list[Any]] = []

    def __init__(self, tracker: Tracker, training: Trial) -> None:
        self.note("begin", trackers._tags(training))

    def log(self, values: Any, step: int) -> None:
        self.note("log", dict(values), step)

    def end(self, well: bool) -> None:
        self.note("end", well)

    def note(self, what: str, *content: Any) -> None:
        self.told.append((what, *content))
        if what in self.fails:
            raise sqlite3.OperationalError("database is locked\nmore")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr(Watched, "told", [])
    monkeypatch.setitem(trackers._RUNS, "tensorboard", Watched)
    return Watched


@pytest.fixture
def carry_out(tmp_path: Path, tiny_study: Study) -> Callable[..., tuple[TrialDone, list[str]]]:
    def do(trial: Trial = tiny_study.plan[1], **faults: str) -> tuple[TrialDone, list[str]]:
        events: list[Any] = []
        tracker = Tracker("tensorboard", tmp_path / "logs", tiny_study.name)
        done = TrialJob(trial, (trial,), Cheap(tmp_path / "began", faults=faults), tracker)(events.append)
        return done, [event.text for event in events if isinstance(event, Notice)]

    return do


def test_a_run_has_tags_losses_and_scores(
    watched: type[Watched], carry_out: Callable[..., Any], tiny_study: Study
) -> None:
    trial = tiny_study.plan[1]
    done, warnings = carry_out()
    tags = {"arm": "noisytune(0.15)", "task": "topics", "seed": "0", "model": "tiny-bert", "key": trial.key}
    assert watched.told == [
        ("begin", tags),
        ("log", {"train/loss": 0.7}, 1),
        ("log", {"accuracy": cheap_record(trial).scores["accuracy"], "seconds": 0.1}, 2),
        ("end", True),
    ]
    assert done.record.key == trial.key
    assert not warnings


def test_a_trial_that_fails_ends_its_run(
    watched: type[Watched], carry_out: Callable[..., Any], tiny_study: Study
) -> None:
    with pytest.raises(ValueError, match="first line"):
        carry_out(**{tiny_study.plan[1].label: "error"})
    assert watched.told[-1] == ("end", False)
    with pytest.raises(TrialError):
        carry_out(**{tiny_study.plan[1].label: "nan"})
    assert watched.told[-1] == ("end", False)


@pytest.mark.parametrize("what", ["begin", "log", "end"])
def test_a_tracker_that_fails_costs_a_warning(
    watched: type[Watched], carry_out: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(watched, "fails", (what,))
    done, warnings = carry_out()
    assert done.record.status == "ok"
    (warning,) = warnings
    assert warning.startswith("tensorboard failed (OperationalError: database is locked):")
    assert "\n" not in warning
    assert watched.told[-1][0] == what, "nothing more is tried"


def test_logs_are_written_through_no_link(carry_out: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "tiny").symlink_to(tmp_path / "elsewhere")
    _, warnings = carry_out()
    assert "is a link to" in warnings[0]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_tensorboard_reads_what_is_written(carry_out: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done, warnings = carry_out()
    assert not warnings
    events = EventAccumulator(str(tmp_path / "logs/tiny/topics-noisytune_0.15_-seed0"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([0.7])
    assert [event.value for event in events.Scalars("accuracy")] == pytest.approx([done.record.scores["accuracy"]])
    assert events.Tensors("arm/text_summary")[0].tensor_proto.string_val == [b"noisytune(0.15)"]


def test_a_tracker_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisytune.lab.trials.trackers.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        Tracker("wandb", tmp_path, "study")
    with pytest.raises(ConfigError, match="tensorboard, mlflow, wandb, trackio"):
        Tracker("paper", tmp_path, "study")
