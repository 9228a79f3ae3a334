"""Studies of trainings of the user's own, and what is checked before anybody believes them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from noisytune._files import digest_of
from noisytune._metrics import OWN, OWN_LOWER
from noisytune._pretrained import Model, find_directory
from noisytune._text import encodable
from noisytune.errors import ConfigError, DataError, TrialError
from noisytune.lab.engines import Engine, JobFailed
from noisytune.lab.kinds import Split
from noisytune.lab.store import StudyStore, refuse_links
from noisytune.lab.studies.attempts import Rules
from noisytune.lab.studies.events import Event, each_notice_once
from noisytune.lab.studies.ready import get_ready
from noisytune.lab.studies.run import USUAL, Until, run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.command import CommandRunner
from noisytune.lab.trials.events import Notice, TrialDone
from noisytune.lab.trials.function import FunctionRunner
from noisytune.lab.trials.jobs import TrialJob
from noisytune.lab.trials.own import SPLIT
from noisytune.lab.trials.scores import Scoring
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord

NO_MODEL = Model("its own weights", Path(), "0" * 16)
"""Of a function that knows by itself what to load."""
NOTHING = Split((), ())
"""The examples of a task that only a script knows."""
_AGAIN = ".noisytune-again-"
"""What the folder of a trial that runs once more begins with."""


@dataclass(frozen=True)
class OwnTask(TaskData):
    """What a training of the user's own is scored on: nobody else knows its examples."""

    @classmethod
    def of(cls, name: str, scoring: Scoring) -> OwnTask:
        """The task of a script.

        Args:
            name: for tables.
            scoring: how its score is read.
        """
        kind = OWN_LOWER if scoring.lower_is_better else OWN
        return cls(encodable(name), kind, scoring.score, (), NOTHING, {SPLIT: NOTHING}, (), reading=scoring.told())

    def __post_init__(self) -> None:
        """Nothing is known that could be wrong."""

    @property
    def metric_label(self) -> str:
        """The score's name."""
        return self.metric

    @property
    def majority(self) -> float | None:
        """Unknown."""
        return None


@dataclass(frozen=True, kw_only=True)
class OwnStudy(Study):
    """A `Study` whose trials are the user's: of its training only what decides the outcome is known."""

    training: TrainingSettings = field(default_factory=TrainingSettings)
    """Nobody asks for it."""
    own: dict[str, Any]
    """What a trial's settings say of its training, as plain JSON."""
    scoring: Scoring

    @cached_property
    def plan(self) -> tuple[Trial, ...]:
        """As `Study.plan`."""
        (task,) = self.tasks
        known = {"name": task.name, "digest": task.digest, "kind": task.kind, **task.roles}
        shared = {"model": {"name": self.model.name, "digest": self.model.digest}, "task": known, "training": self.own}
        return tuple(
            Trial(shared | {"arm": {"name": arm.name, "methods": list(arm.methods)}, "seed": seed})
            for seed in self.seeds
            for arm in self.arms
        )

    def training_of(self, trial: Trial) -> Trial:
        """The trial itself."""
        return trial

    @property
    def notices(self) -> tuple[str, ...]:
        """Its task's."""
        return self.tasks[0].notices

    @cached_property
    def record(self) -> StudyRecord:
        """As `Study.record`, with what its predictions are."""
        whole = super().record
        items = {"kind": self.scoring.predictions_kind, "metric": self.scoring.predictions_metric}
        tasks = [task | {"items": items} for task in whole.tasks]
        return replace(whole, training=self.own, tasks=tasks)


def own_model(directory_or_hub_id: str) -> Model:
    """The weights that a training of the user's own starts from: any directory, known by all that is in it.

    Raises:
        DataError: there is no such directory, or nothing is in it.
    """
    path = find_directory(directory_or_hub_id, whole=True)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise DataError(f"model {directory_or_hub_id!r}: {path} is empty; give a directory of weights")
    name = path.resolve().name if Path(directory_or_hub_id).is_dir() else directory_or_hub_id
    return Model(encodable(name), path, digest_of(files)[:16])


def run_own(
    study: OwnStudy,
    store: StudyStore,
    engine: Engine,
    on_event: Callable[[Event], None],
    runner: CommandRunner | FunctionRunner,
    *,
    until: Until | None = None,
    rerun: bool = True,
    report_to: str | None = None,
    rules: Rules = USUAL,
) -> StudyRecord:
    """Run what is missing of a study of the user's own trainings, once a rerun of the baseline shows what seeds do.

    Args:
        study: what to compare.
        store: the run folder.
        engine: where trials run.
        on_event: told of everything that happens.
        runner: how trials are carried out.
        until: as for `noisytune.lab.studies.run.run_study`.
        rerun: whether the baseline's first seed is run twice, unless an earlier run has done so.
        report_to: a tracker that trials log to as well.
        rules: what to do about failures, for how long, and until when.

    Raises:
        ConfigError: the run folder lies in the model's folder.
        TrialError: two seeds of the baseline give the same: there are no pairs to compare.
        NoisyTuneError: as `noisytune.lab.studies.run.run_study`.
    """
    if study.model is not NO_MODEL and store.folder.resolve().is_relative_to(study.model.path.resolve()):
        raise ConfigError(
            f"out must be outside the model's folder {study.model.path}, which is known by all that is in it, got "
            f"{store.folder}"
        )
    refuse_links(store.folder / "outputs", store.folder / "checkpoints")
    facts = _known(store)
    if rerun and not facts:
        on_event = each_notice_once(on_event)
        with store.lock():  # what is impossible is said before the baseline is trained, not after
            get_ready(study, runner, engine, study.plan, on_event)
        first = replace(study, arms=study.arms[:1], seeds=study.seeds[:2])
        record = run_study(first, store, engine, on_event, None, report_to, runner, rules)
        if rules.stopping():
            return record
        found = store.records(trial.key for trial in first.plan)
        if found and found[0].seed == study.seeds[0]:
            with store.lock():
                again = _again(first.plan[0], engine, runner, on_event, rules)
            facts = compared(study.scoring, found, again)
            on_event(Notice(facts["rerun"]["found"]))
    study = replace(study, tasks=(replace(study.tasks[0], facts=facts),))
    return run_study(study, store, engine, on_event, until, report_to, runner, rules)


def _known(store: StudyStore) -> dict[str, Any]:
    """What an earlier run found out."""
    earlier = store.read_study()
    return dict(earlier.tasks[0].get("facts") or {}) if earlier else {}


def _again(
    trial: Trial,
    engine: Engine,
    runner: CommandRunner | FunctionRunner,
    on_event: Callable[[Event], None],
    rules: Rules,
) -> TrialRecord:
    """Run a trial that is finished once more, in a folder that is locked. Its record is not kept."""
    for leftover in runner.folder.glob(f"{_AGAIN}*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    found: list[TrialRecord] = []

    def told(message: Any) -> None:
        if isinstance(message, JobFailed):
            raise message.error
        if isinstance(message, TrialDone):
            found.append(message.record)

    on_event(Notice(f"{trial.label} runs once more, to see whether its seed decides what comes out"))
    with TemporaryDirectory(prefix=_AGAIN, dir=runner.folder) as place:  # the outputs that are kept are the record's
        elsewhere = replace(runner, folder=Path(place))
        engine.run([TrialJob(trial, (trial,), elsewhere, limit=rules.trial_timeout)], told)
    return found[0]


def compared(scoring: Scoring, found: list[TrialRecord], again: TrialRecord) -> dict[str, Any]:
    """What two runs of one seed and a run of another say of a training, for the study's record.

    Args:
        scoring: how scores are read.
        found: of the baseline: the first seed's run, and another seed's where there is one.
        again: the first seed's second run.

    Returns:
        ``rerun``: ``floor``, how many points two runs of one seed differ by, and in ``found`` what that means.

    Raises:
        TrialError: the seed does nothing.
    """
    name, first, others = scoring.score, found[0], found[1:]
    one, two = (100 * record.scores.get(scoring.score, math.nan) for record in (first, again))
    same = _numbers(first) == _numbers(again)
    if math.isnan(one) or math.isnan(two):
        said, floor = "a run of it diverged: nothing is known of how equal two runs are", None
    elif same and others and _numbers(first) == _numbers(others[0]):
        raise TrialError(
            f"seeds {first.seed} and {others[0].seed} give the same {name} ({one:.2f}) and the same other numbers: the "
            "seed is ignored, and there are no pairs to compare; pass {seed} on (or read NOISYTUNE_SEED), or say "
            "no_rerun if both are right"
        )
    elif same:
        said, floor = f"{name} is {one:.2f} both times: the seed decides what comes out", 0.0
    elif one == two:
        said, floor = f"{name} is {one:.2f} both times, other numbers differ a little", 0.0
    else:
        floor = abs(one - two)
        said = (
            f"{name} is {one:.2f}, then {two:.2f}: its seed does not decide all, and a single difference of up to "
            f"{floor:.2f} points is nothing"
        )
    rerun: dict[str, Any] = {"seed": first.seed, "found": f"A second run of the baseline's seed {first.seed}: {said}"}
    return {"rerun": rerun | ({} if floor is None else {"floor": round(floor, 6)})}


_CLOCKS = ("time", "second", "speed", "date", "memory")
"""What names of numbers hold that differ between equal runs."""


def _numbers(record: TrialRecord) -> Mapping[str, Any]:
    """What a run gave, but for times; of each example, too, where it says."""
    beside = record.evaluations[SPLIT]["chosen"]["numbers"]
    kept = {name: value for name, value in beside.items() if not any(clock in name.lower() for clock in _CLOCKS)}
    outputs = {name: array.tolist() for name, array in record.outputs.items()}
    return record.scores | kept | outputs
