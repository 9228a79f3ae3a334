"""Lines of progress for a log: a trial each, with what is odd about it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from support.records import synthetic

from noisytune._console import Console
from noisytune.cli.study_display import StudyDisplay
from noisytune.lab.studies.events import StudyStarted
from noisytune.lab.trials.events import TrialDone, TrialStarted
from noisytune.lab.trials.trial import Trial


@pytest.mark.parametrize(
    ("status", "max_steps", "ends"),
    [
        ("ok", None, "22 s"),
        ("collapsed", None, "22 s  collapsed"),
        ("untrained", None, "22 s  untrained"),
        ("untrained", 0, "22 s"),  # scored before training, as it was asked for
        ("diverged", 0, "22 s  diverged"),
    ],
)
def test_a_trial_is_a_line(status: str, max_steps: int | None, ends: str) -> None:
    study, records = synthetic()
    trial = Trial(records[0].settings | {"training": {"epochs": 3, "max_steps": max_steps}})
    record = replace(records[0], key=trial.key, settings=trial.settings, status=status)
    out = io.StringIO()
    display = StudyDisplay(Console(file=out, width=80, force_terminal=False))
    display.on_event(StudyStarted(study, (), tuple(records), Path("runs")))
    display.on_event(TrialStarted(trial))
    display.on_event(TrialDone(record))
    line = out.getvalue().splitlines()[-1]
    assert line.split()[:4] == ["1/10", "seed", "0", "plain"]
    assert line.endswith(f"{100 * record.scores['accuracy']:.2f}  {ends}")
