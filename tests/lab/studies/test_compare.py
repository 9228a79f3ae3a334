"""One call from a model and a task to a finished study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noisytune._pretrained import Model
from noisytune.errors import ConfigError
from noisytune.lab.engines import InlineEngine
from noisytune.lab.studies.compare import Noises, arms_of, compare, seeds_of
from noisytune.lab.studies.events import Event, StudyStarted
from noisytune.lab.tasks import TaskData, TaskOptions
from noisytune.lab.trials.events import TrialStarted
from noisytune.lab.trials.settings import TrainingSettings

SHORT = TrainingSettings(max_steps=2, max_length=32, batch_size=4)


@pytest.mark.usefixtures("one_thread")
def test_a_comparison_is_run_and_extended(tiny: Model, topics: TaskData, tmp_path: Path) -> None:
    told: list[Event] = []
    asked: dict[str, Any] = {"training": SHORT, "out": tmp_path / "run", "on_event": told.append}
    with InlineEngine() as engine:
        first = compare(str(tiny.path), (topics,), arms=("noisytune(0.3)",), seeds=1, engine=engine, **asked)
        assert [record.arm for record in first.records] == ["plain", "noisytune(0.3)"]
        assert first.folder == tmp_path / "run"
        assert first.study.training["learning_rate"] == 2e-5
        more = compare(str(tiny.path), (topics,), arms=("noisytune(0.3)",), seeds=2, engine=engine, **asked)
    assert len(more.records) == 4
    assert {record.key for record in first.records} < {record.key for record in more.records}
    assert sum(isinstance(event, TrialStarted) for event in told) == 4
    assert [len(event.finished) for event in told if isinstance(event, StudyStarted)] == [0, 2]


def test_what_it_is_called_with_is_checked_before_anything_is_kept(tiny: Model, tmp_path: Path) -> None:
    for wrong in ({"arms": ()}, {"arms": ("recadm",)}, {"seeds": 0}, {"options": TaskOptions(metric="f")}):
        with pytest.raises(ConfigError), InlineEngine() as engine:
            compare(str(tiny.path), engine=engine, out=tmp_path / "run", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", [0, -1, True, 1.0, "3", 100_001, 9_999_999_999, [], [0.5], ["1"]])
def test_seeds_that_are_none(seeds: Any) -> None:
    with pytest.raises(ConfigError, match="seeds must be a number of seeds, 1 to 100,000"):
        seeds_of(seeds)


def test_an_arm_for_each_combination_of_noises() -> None:
    noises = Noises(noise_lambda="0, 0.1,0.2", scale=("matrix", "global"), exclude="*bias*")  # type: ignore[arg-type]
    names = [arm.name for arm in arms_of(*noises.arms())]
    assert names == [
        "plain",
        *(
            f"noisytune({strength}{scale}, exclude=*bias*)"
            for strength in (0.1, 0.2)
            for scale in ("", ", scale=global")
        ),
    ]
    with pytest.raises(ConfigError, match="noise_lambda must be one or several, none twice"):
        Noises(noise_lambda=(0.1, 0.1))
