"""Studies that are planned once and worked on by any number of processes: what each has to know, and its share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from noisytune._files import parse_object
from noisytune.errors import ConfigError, DataError, NotFoundError, RunFolderError
from noisytune.lab.engines import Engine
from noisytune.lab.store import Store, StudyStore, read_file, write_file
from noisytune.lab.studies.attempts import Attempts, Rules
from noisytune.lab.studies.document import MOST_BYTES
from noisytune.lab.studies.events import Event, StudyStarted, each_notice_once
from noisytune.lab.studies.file import read_studies
from noisytune.lab.studies.merge import extend, under_known_names
from noisytune.lab.studies.ready import about_room, get_ready, set_damaged_aside
from noisytune.lab.studies.run import USUAL, reachable, tracker_of, trial_jobs
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.events import Notice
from noisytune.lab.trials.runner import Runner
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial

PLAN = "plan.json"
"""The file of a run folder that keeps the study's file."""


@dataclass(frozen=True)
class Part:
    """A fixed share of the pairs of a study.

    >>> Part.parse("2/8")
    Part(number=2, of=8)
    """

    number: int
    """From 1."""
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``i/n``.

        Raises:
            ConfigError: it is something else, or i is not 1 to n.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise ConfigError(f"part must be i/n with 1 <= i <= n, such as 2/8, got {text!r}")
        return cls(int(number), int(of))

    def of_plan(self, plan: tuple[Trial, ...]) -> list[Trial]:
        """Its trials, the same however much of the study is done. Pairs of a seed stay together."""
        places: dict[tuple[int, str], int] = {}
        for trial in plan:
            places.setdefault(_pair(trial), len(places))
        return [trial for trial in plan if places[_pair(trial)] % self.of == self.number - 1]


def _pair(trial: Trial) -> tuple[int, str]:
    """What must not be torn: a seed of a training."""
    task = trial.settings["task"]
    return trial.seed, str(task.get("trained_on", task)["name"])


def plan(file: Path, folder: Path, engine: Engine, on_event: Callable[[Event], None]) -> list[Study]:
    """Write what a study file asks for into a run folder, and run nothing of it.

    Every arm is checked on the real weights, and the tokens of all tasks are made: what fails fails here.

    Args:
        file: as for `noisytune.lab.studies.file.read_studies`.
        folder: the run folder: empty, or with studies that these extend.
        engine: where arms are checked and tokens are made.
        on_event: told of what the user should know.

    Returns:
        the studies, one for each model.

    Raises:
        RunFolderError: the folder holds another study or plan, is in use, or cannot be written.
        NoisyTuneError: something is wrong with the file, the model or the data.
    """
    # Read once: a pipe gives its content to the first who asks.
    content = file.read_bytes() if file.exists() and not file.is_dir() else None
    studies, on_event = list(read_studies(file, content=content)), each_notice_once(on_event)
    names, text = [study.file_name for study in studies], (content or b"").decode("utf-8-sig")
    kept = {"format": 1, "file": str(file.absolute()), "content": text, "studies": names}
    _refuse_another_plan(folder, names)
    for study in studies:
        store = Store(folder, study.file_name)
        with store.lock() as notice:
            if notice:
                on_event(Notice(notice))
            earlier = store.read_study()
            runner = _runner(study, store)
            get_ready(study, runner, engine, study.plan, on_event)
            store.write_study(extend(earlier, study.record, folder))
            write_file(folder / PLAN, json.dumps(kept, ensure_ascii=False, indent=1).encode())
    return studies


def _refuse_another_plan(folder: Path, names: list[str]) -> None:
    """A folder keeps one plan: nobody would work on the studies of an earlier one that this one lacks.

    Raises:
        RunFolderError: there are such studies.
    """
    try:
        earlier = _kept(folder).get("studies")
    except RunFolderError:
        return  # none, or a damaged one, which is planned again
    if isinstance(earlier, list) and (lost := [str(name) for name in earlier if name not in names]):
        raise RunFolderError(f"{folder} holds the plan of {', '.join(lost)}: give another --out")


def planned(folder: Path) -> list[Study]:
    """The studies that `plan` wrote into a run folder, with their models found and their data loaded.

    Raises:
        NotFoundError: there is no such folder.
        RunFolderError: nothing was planned in it, or a model or data here are not those of the plan.
        NoisyTuneError: a model or data cannot be found.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: there is no such folder")
    file = folder / PLAN
    if not file.exists():
        raise RunFolderError(f"{folder} holds no plan: write one with  noisytune plan STUDY.yaml --out {folder}")
    kept = _kept(folder)
    path, content = kept.get("file"), kept.get("content")
    if kept.get("format") != 1 or not isinstance(path, str) or not isinstance(content, str):
        raise RunFolderError(f"{file}: not a plan that this version of noisytune can read: plan the study again")
    studies = read_studies(Path(path), content=content.encode())
    return [_as_planned(study, Store(folder, study.file_name)) for study in studies]


def _kept(folder: Path) -> dict[str, Any]:
    """What a run folder says of its plan.

    Raises:
        RunFolderError: it has none, or a damaged one.
    """
    try:
        return parse_object(folder / PLAN, read_file(folder / PLAN, 4 * MOST_BYTES))
    except DataError as error:
        raise RunFolderError(str(error)) from error


def _as_planned(study: Study, store: Store) -> Study:
    """The study under the names of its plan, if it is the same."""
    earlier = store.read_study()
    if earlier is None:
        raise RunFolderError(f"{store.study_file}: missing, though it was planned: plan the study again")
    model, tasks = under_known_names(study.model, study.tasks, earlier)
    study = replace(study, model=model, tasks=tasks)
    extend(earlier, study.record, store.folder)
    keys = {entry["key"] for entry in earlier.trials}
    for trial in study.plan:
        if trial.key not in keys:
            raise RunFolderError(
                f"{store.folder}: {trial.label} is not the trial that was planned: plan the study again"
            )
    return study


def work(
    study: Study,
    store: StudyStore,
    engine: Engine,
    on_event: Callable[[Event], None],
    part: Part | None = None,
    report_to: str | None = None,
    runner: Runner | None = None,
    rules: Rules = USUAL,
) -> int:
    """Run whatever is missing of a planned study. Any number of processes may do so at a time, on any machines.

    Args:
        study: as `planned` gives it.
        store: of its run folder.
        engine: where trials run.
        on_event: told of everything that happens here.
        part: a share that is fixed; None: whatever nobody else has claimed.
        report_to: a tracker that trials log to as well.
        runner: how trials are carried out; None: with the transformers Trainer.
        rules: what to do about failures, for how long, and until when.

    Returns:
        how many trials failed here.

    Raises:
        TrialError: a trial failed, where the rules say so.
        NoisyTuneError: something is wrong with the model, the data or the folder.
    """
    runner, on_event = runner or _runner(study, store), each_notice_once(on_event)
    tracker = tracker_of(report_to, store, study)
    mine = part.of_plan(study.plan) if part else list(study.plan)
    for notice in set_damaged_aside(store, (trial.key for trial in mine)):
        on_event(Notice(notice))
    done = store.index()
    missing = tuple(trial for trial in mine if trial.key not in done)
    finished = tuple(store.records(trial.key for trial in mine if trial.key in done))
    on_event(StudyStarted(study.record, finished, missing, store.folder))
    if room := about_room(store.folder, missing, finished):
        on_event(Notice(room))
    if not missing:
        return 0
    get_ready(study, runner, engine, missing, on_event, arms=False)
    attempts = Attempts(store, engine, on_event, rules)
    attempts.run(trial_jobs(study, missing, runner, reachable(tracker, on_event)))
    return len(attempts.failed)


def _runner(study: Study, store: StudyStore) -> Runner:
    return TransformersRunner.of(study.model, study.training.max_length, store.cache_folder)
