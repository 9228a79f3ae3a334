"""A study that is killed loses nothing, and goes on to the same end."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisytune._pretrained import Model
from noisytune.lab.engines import LocalEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.events import Event
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskOptions, task_from_rows
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.events import TrialProgress
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Tokens, tokenise
from noisytune.records import TrialRecord
from tests.support.engines import files, settled

DRIVER = """
    import os, pickle, sys, time
    from pathlib import Path
    from noisytune.lab.engines import InlineEngine, LocalEngine
    from noisytune.lab.trials.events import TrialStarted
    from noisytune.lab.store import Store
    from noisytune.lab.studies.run import run_study

    study, folder, log = pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2], open(sys.argv[3], "a")

    def on_event(event):
        if isinstance(event, TrialStarted):
            print(event.trial.key, file=log, flush=True)

    with LocalEngine(2, 1) as engine:
        run_study(study, Store(folder), engine, on_event)
"""


def outcome(record: TrialRecord) -> tuple[Any, ...]:
    return record.settings, record.status, record.scores, record.loss_curve, record.predictions, record.references


def kill_and_resume(study: Study, tmp_path: Path, delays: list[float], after: list[int]) -> list[TrialRecord]:
    """Run a study, SIGKILL it ``delays`` seconds after it holds ``after`` records, then run it to its end.

    On the way, check that no finished trial is started again or rewritten, and that no worker survives.
    """
    mark = f"NOISYTUNE_TEST={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    plan, folder = tmp_path / "study.pickle", tmp_path / "run"
    plan.write_bytes(pickle.dumps(study))
    finished: dict[str, tuple[int, int]] = {}
    for number, (delay, records) in enumerate([*zip(delays, after, strict=True), (0.0, -1)]):
        log = tmp_path / f"started-{number}"
        command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(plan), str(folder), str(log)]
        with subprocess.Popen(command, env=os.environ | {name: value}, start_new_session=True) as driver:
            if records >= 0:
                while len(files(folder)) < records and driver.poll() is None:
                    time.sleep(0.01)
                time.sleep(delay)
                driver.kill()
            code = driver.wait(240)
        # A kill that comes too late finds the study done.
        assert code == 0 or (records >= 0 and code == -signal.SIGKILL)
        assert settled(mark, 0) == []
        started = log.read_text().split() if log.exists() else []
        assert len(started) == len(set(started))
        assert not set(started) & set(finished)
        now = files(folder)
        assert {key: now[key] for key in finished} == finished
        finished = now
    assert list(folder.rglob(".tmp-*")) == []
    return Store(folder).records([trial.key for trial in study.plan])


def undisturbed(study: Study, tokens: Tokens) -> list[TrialRecord]:
    """The same trials, one after the other in this process."""
    from noisytune.lab.trials.fine_tune import run_trial

    return [run_trial(trial, study.model.path, tokens) for trial in study.plan]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_study_killed_and_resumed_gives_what_an_undisturbed_one_gives(
    tiny_study: Study, tiny_tokens: Tokens, tmp_path: Path
) -> None:
    resumed = kill_and_resume(tiny_study, tmp_path, delays=[0.05], after=[1])
    expected = undisturbed(tiny_study, tiny_tokens)
    assert [outcome(record) for record in resumed] == [outcome(record) for record in expected]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_so_does_a_study_of_a_language_model(language_models: dict[str, Model], tmp_path: Path) -> None:
    rows = [{"prompt": f"say {word} {i}", "completion": f" {word}"} for i in range(6) for word in ("one", "two", "six")]
    task = task_from_rows(rows, TaskOptions(metric="exact_match", max_new_tokens=2))
    study = Study(
        name="t",
        model=language_models["llama"],
        tasks=(task,),
        arms=(PLAIN, Arm.parse("noisytune")),
        seeds=(0, 1),
        training=TrainingSettings(max_steps=3, batch_size=4, lora="r=2,alpha=4"),
        margin=1.0,
    )
    resumed = kill_and_resume(study, tmp_path, delays=[0.05], after=[1])
    expected = undisturbed(study, tokenise(study.model.path, task, 256))
    for one, other in zip(resumed, expected, strict=True):
        assert (one.status, one.evaluations, one.loss_curve) == (other.status, other.evaluations, other.loss_curve)
        for name, array in one.outputs.items():  # an item without a pattern is no number
            np.testing.assert_array_equal(array, other.outputs[name])


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_killed_at_many_moments(tiny_study: Study, tiny_tokens: Tokens, tmp_path: Path) -> None:
    rng = random.Random(int.from_bytes(os.urandom(4), "little"))
    study = replace(tiny_study, seeds=tuple(range(6)))
    delays = [rng.uniform(0, 12), rng.uniform(0, 12), *(rng.uniform(0, 0.5) for _ in range(5))]
    resumed = kill_and_resume(study, tmp_path, delays, after=[0, 0, 1, 2, 4, 5, 7])
    expected = undisturbed(study, tiny_tokens)
    assert [outcome(record) for record in resumed] == [outcome(record) for record in expected], delays


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_defaults_run_end_to_end_with_the_real_model(
    tiny_study: Study, minilm: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two workers, two arms, nothing on the terminal; lambda 0 as an arm equals the baseline across processes."""
    study = replace(
        tiny_study,
        model=minilm,
        arms=(PLAIN, Arm.parse("noisytune(0)")),
        seeds=(0,),
        training=replace(tiny_study.training, max_steps=2),
    )
    events: list[Event] = []
    with LocalEngine(2, 1) as engine:
        run_study(study, Store(tmp_path), engine, events.append)
    plain, zero = Store(tmp_path).records([trial.key for trial in study.plan])
    assert outcome(plain)[1:] == outcome(zero)[1:]
    for record in (plain, zero):
        steps = [e for e in events if isinstance(e, TrialProgress) and e.key == record.key]
        assert [(e.step, e.total_steps, e.loss) for e in steps] == [
            (i + 1, 2, loss) for i, loss in enumerate(record.loss_curve)
        ]
        assert record.environment["threads"] == 1
    assert capfd.readouterr() == ("", "")
