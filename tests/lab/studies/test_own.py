"""Studies of a script of the user's: pairs, what a second run shows, and scripts that fail."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisytune._processes import marked
from noisytune.errors import ConfigError, RunFolderError, TrialError
from noisytune.lab.engines import InlineEngine, LocalEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.attempts import Rules
from noisytune.lab.studies.compare import arms_of
from noisytune.lab.studies.own import OwnStudy, OwnTask, own_model, run_own
from noisytune.lab.studies.run import USUAL
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.command import Command, CommandRunner
from noisytune.lab.trials.events import Notice, TrialFailed
from noisytune.lab.trials.scores import Scoring
from noisytune.records import StudyRecord
from noisytune.report import notes, render_html, render_markdown, summary_rows
from tests.support.scripts import HONEST, written

SCORING = Scoring(score="eval_accuracy")


class Runs:
    """Runs studies of scripts in one folder, and keeps what they told."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.events: list[Any] = []

    def study(self, command: Command, seeds: int = 2, scoring: Scoring = SCORING) -> OwnStudy:
        return OwnStudy(
            name=command.name,
            model=own_model(str(self.model)),
            tasks=(OwnTask.of(command.name, scoring),),
            arms=arms_of("noisytune"),
            seeds=range(seeds),
            margin=1.0,
            own=command.told(),
            scoring=scoring,
        )

    def __call__(
        self,
        script: str,
        seeds: int = 2,
        *,
        rerun: bool = True,
        scoring: Scoring = SCORING,
        engine: Any = None,
        rules: Rules = USUAL,
        **options: Any,
    ) -> StudyRecord:
        command = Command(command=written(self.folder / "code", script), **options)
        runner = CommandRunner.of(self.model, command, scoring, self.store.folder)
        study, self.events = self.study(command, seeds, scoring), []
        engine = engine or InlineEngine()
        return run_own(study, self.store, engine, self.events.append, runner, rerun=rerun, rules=rules)

    @property
    def store(self) -> Store:
        return Store(self.folder / "run")

    @property
    def told(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Notice)]


@pytest.fixture
def runs(tiny: Any, tmp_path: Path) -> Runs:
    return Runs(tmp_path, Path(shutil.copytree(tiny.path, tmp_path / "weights")))


def test_pairs_of_a_script(runs: Runs) -> None:
    study = runs(HONEST, 3)
    records = runs.store.records(entry["key"] for entry in study.trials)
    assert [(record.arm, record.seed) for record in records] == [
        (arm, seed) for seed in range(3) for arm in ("plain", "noisytune(0.15)")
    ]
    scores = np.array([record.scores["eval_accuracy"] for record in records]).reshape(3, 2)
    (row,) = summary_rows(study, records)
    assert row.difference == pytest.approx(100 * (scores[:, 1] - scores[:, 0]).mean())
    assert study.tasks[0]["facts"]["rerun"]["floor"] == 0
    assert any("both times: the seed decides what comes out" in text for text in runs.told)
    assert study.training["script"].keys() == {str(runs.folder / "code/train.py")}


def test_what_a_script_wrote_stays_that_of_its_record(runs: Runs) -> None:
    """The baseline's first seed runs twice, to see whether it decides: the second run writes elsewhere."""
    unsure = HONEST + "file = out / 'all_results.json'\nfound = json.loads(file.read_text())\n"
    unsure += "found['eval_accuracy'] += int.from_bytes(os.urandom(2), 'big') / 1e7\n"
    (runs.folder / "run/.noisytune-again-killed/outputs").mkdir(parents=True)
    study = runs(unsure + "file.write_text(json.dumps(found))\n")
    for record in runs.store.records(entry["key"] for entry in study.trials):
        (file,) = runs.folder.glob(f"run/outputs/*-{record.key[:8]}/all_results.json")
        assert json.loads(file.read_text())["eval_accuracy"] == record.scores["eval_accuracy"]
    assert study.tasks[0]["facts"]["rerun"]["floor"] > 0
    assert not list(runs.folder.glob("run/.noisytune-*"))


def test_an_arm_with_a_long_name_runs(runs: Runs) -> None:
    command = Command(command=written(runs.folder / "code", HONEST))
    layers = "|".join(f"encoder.layer.{i}.attention.self.*" for i in range(2)) + "|embeddings.*" * 20
    study = replace(runs.study(command), arms=(PLAIN, Arm.parse(f"noisytune(0.1, exclude={layers})")))
    runner = CommandRunner.of(runs.model, command, SCORING, runs.store.folder)
    found = run_own(study, runs.store, InlineEngine(), lambda _: None, runner, rerun=False)
    assert len(runs.store.records(entry["key"] for entry in found.trials)) == 4


def test_a_finished_script_goes_on_and_is_not_checked_again(runs: Runs) -> None:
    first = runs(HONEST)
    outputs = {file: file.stat().st_mtime_ns for file in runs.folder.glob("run/outputs/*/all_results.json")}
    longer = runs(HONEST, 3)
    assert longer.tasks[0]["facts"] == first.tasks[0]["facts"]
    assert runs.told == []
    assert (
        outputs.items()
        <= {file: file.stat().st_mtime_ns for file in runs.folder.glob("run/outputs/*/all_results.json")}.items()
    )
    assert len(longer.trials) == 6


def test_a_changed_script_is_another_study(runs: Runs) -> None:
    runs(HONEST)
    with pytest.raises(RunFolderError, match=r"holds another study: its script is"):
        runs(HONEST + "\n")


def test_the_report_of_a_script(runs: Runs) -> None:
    study = runs(HONEST, 3)
    records = runs.store.records(entry["key"] for entry in study.trials)
    page = render_markdown(study, records)
    assert "The scores are eval\\_accuracy as the training itself gave them, in points." in page
    assert "share the training's code, the model and the seed; only the arm differs." in page
    table = page.partition("## Example by example")[2]
    (bootstrap, *pairs) = [line for line in table.splitlines() if line.startswith("| train.py")][:4]
    assert " to " in bootstrap, "the score is the accuracy of the predictions"
    assert len(pairs) == 3
    assert "the order of the batches" not in page
    render_html(study, records)


def test_a_loss_that_falls_is_a_gain(runs: Runs) -> None:
    loss = Scoring(score="eval_loss", lower_is_better=True)
    study = runs(HONEST, 2, scoring=loss)
    records = runs.store.records(entry["key"] for entry in study.trials)
    (row,) = summary_rows(study, records)
    read = [record.evaluations["eval"]["chosen"]["numbers"]["eval_loss"] for record in records]
    assert row.difference == pytest.approx(np.mean([read[0] - read[1], read[2] - read[3]]))
    assert row.baseline_mean == pytest.approx(np.mean(read[::2]))
    assert study.tasks[0]["kind"] == "own, lower is better"


CONSTANT = "import os; os.environ['NOISYTUNE_MODEL']; print('eval_accuracy: 0.5')"


def test_a_seed_that_does_nothing_ends_the_study(runs: Runs) -> None:
    with pytest.raises(TrialError, match=r"seeds 0 and 1 give the same eval_accuracy .50.00. .* the seed is ignored"):
        runs(CONSTANT)
    assert len(runs(CONSTANT, rerun=False).trials) == 4


def test_a_baseline_that_diverges_does_not_say_what_seeds_do(runs: Runs) -> None:
    study = runs(CONSTANT.replace("0.5", "nan"))
    assert "a run of it diverged" in study.tasks[0]["facts"]["rerun"]["found"]
    assert len(runs.store.index()) == 4


def test_a_training_without_a_seed_has_a_floor(runs: Runs) -> None:
    draws = "import os, random; os.environ['NOISYTUNE_MODEL']; print('eval_accuracy:', random.SystemRandom().random())"
    study = runs(draws)
    rerun = study.tasks[0]["facts"]["rerun"]
    assert 0 < rerun["floor"] <= 100
    assert f"a single difference of up to {rerun['floor']:.2f} points is nothing" in rerun["found"]
    records = runs.store.records(entry["key"] for entry in study.trials)
    assert f"{rerun['found']}." in notes(study, records)


def test_a_command_that_always_fails_ends_before_the_study(runs: Runs) -> None:
    with pytest.raises(
        TrialError, match=r"train.py-plain-seed0 failed: the command ended with code 1: ZeroDivisionError"
    ):
        runs("import os; os.environ['NOISYTUNE_MODEL']; 1 / 0")


def test_what_fails_leaves_the_others_alone_and_is_tried_again(runs: Runs) -> None:
    script = HONEST.replace(
        "out = Path", "if asked.seed == '1' and not Path('mended').exists(): raise SystemExit(3)\nout = Path"
    )
    study = runs(script, 3, cwd=runs.folder)
    assert len(runs.store.index()) == 4
    failures = list(runs.store.failures().values())
    assert {failure.reason.partition(" failed: ")[0] for failure in failures} == {
        "train.py-plain-seed1",
        "train.py-noisytune(0.15)-seed1",
    }
    (runs.folder / "mended").touch()
    study = runs(script, 3, cwd=runs.folder)
    assert len(runs.store.records(entry["key"] for entry in study.trials)) == 6
    assert study.tasks[0]["facts"]["rerun"]["floor"] == 0


def test_the_last_words_are_the_scripts_own(runs: Runs) -> None:
    with pytest.raises(TrialError):
        runs("import os; os.environ['NOISYTUNE_MODEL']; print('first'); raise ValueError('second')")
    words = [failure.last_words for failure in runs.store.failures().values()]
    assert all(each.startswith("first\nTraceback") and each.endswith("ValueError: second") for each in words)


@pytest.mark.usefixtures("quick_workers")
def test_a_script_that_hangs_is_given_up_with_all_that_it_started(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_TEST", f"{os.getpid()}-{time.time_ns()}")
    hang = HONEST.replace(
        "out = Path",
        "if asked.seed == '1':\n    import time\n    if os.fork() == 0: os.setsid()\n    time.sleep(600)\nout = Path",
    )
    with LocalEngine(1) as engine:
        runs(hang, 3, engine=engine, rules=Rules(trial_timeout=3.0))
    assert len(runs.store.index()) == 4
    failed = [event for event in runs.events if isinstance(event, TrialFailed)]
    assert {event.message for event in failed} >= {
        "train.py-plain-seed1: given up after 3 s, the most that a trial may take"
    }
    assert {failure.cause for failure in runs.store.failures().values()} == {"time"}
    assert [pid for pid in marked(f"OWN_TEST={os.environ['OWN_TEST']}") if pid != os.getpid()] == []


def test_another_method_is_refused_before_anything_is_run(runs: Runs) -> None:
    command = Command(command=written(runs.folder / "code", HONEST))
    study = replace(runs.study(command), arms=arms_of("recadam"))
    runner = CommandRunner.of(runs.model, command, SCORING, runs.store.folder)
    for rerun in (False, True):
        with pytest.raises(ConfigError, match=r"^arm recadam: recadam works while a model trains"):
            run_own(study, runs.store, InlineEngine(), lambda _: None, runner, rerun=rerun)
    assert not (runs.folder / "run/outputs").exists()


@pytest.mark.parametrize("place", ["weights", "weights/runs/one"])
def test_a_run_folder_in_the_models_folder_is_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Whatever is written there would make it another model."""
    monkeypatch.setattr(Runs, "store", Store(runs.folder / "code/.." / place))
    with pytest.raises(ConfigError, match=r"out must be outside the model's folder .*weights"):
        runs(HONEST)
    assert not (runs.model / "runs").exists()


def test_any_directory_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/weights.npz").write_bytes(b"1")
    first = own_model(str(tmp_path)).digest
    (tmp_path / "deep/weights.npz").write_bytes(b"2")
    assert own_model(str(tmp_path)).digest != first
    assert sys.executable


def test_what_somebody_else_keeps_in_the_run_folder_stays(runs: Runs) -> None:
    """A folder of checkpoints of the user's own, one with noise among them: only what a trial has made is tidied up."""
    mine = [runs.folder / "run" / name for name in ("checkpoints/base", "checkpoints/noisy", "again-and-again")]
    for folder in mine:
        folder.mkdir(parents=True)
        (folder / "noisytune.json").write_text("{}")
    runs(HONEST)
    assert all((folder / "noisytune.json").is_file() for folder in mine)


@pytest.mark.parametrize("name", ["checkpoints", "outputs"])
def test_nothing_is_written_or_removed_through_a_link(runs: Runs, name: str) -> None:
    elsewhere = runs.folder / "elsewhere"
    elsewhere.mkdir()
    (runs.folder / "run").mkdir()
    (runs.folder / "run" / name).symlink_to(elsewhere)
    with pytest.raises(RunFolderError, match=f"{name} is a link to .*elsewhere"):
        runs(HONEST)
