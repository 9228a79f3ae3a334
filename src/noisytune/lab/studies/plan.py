"""What would a study be, where its models or its data are not on this machine? Trials, rows and languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from noisytune._hub import fetch, local_files_only
from noisytune._pretrained import CONFIG, Model
from noisytune.errors import DataError
from noisytune.lab.studies.cost import flops, seconds_on
from noisytune.lab.studies.file import AS_WRITTEN, Changes, StudyFile, Wanted, refuse_twins
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import BENCHMARKS, TASKS, TaskData, fitting
from noisytune.lab.tasks.expected import Expected, expected, languages_of
from noisytune.lab.trials.arm import Arm, reads
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import looked_up, without_weights


@dataclass(frozen=True)
class PlannedTask:
    """The trials of one model on one task."""

    task: Expected
    arms: tuple[Arm, ...]
    seeds: int
    training: TrainingSettings
    shares_training: bool
    """Whether another task of the plan pays for the training."""

    @property
    def trials(self) -> int:
        """How many."""
        return len(self.arms) * self.seeds

    def flops(self, parameters: int) -> float:
        """Of one trial, the mean of its arms, were every row as long as ``max_length``.

        Args:
            parameters: of the model, without embeddings.
        """
        rows, longest = self.task.train_rows, self.training.max_length
        times = 0.0 if self.shares_training else fmean(reads(arm, self.training, rows) for arm in self.arms)
        read, frozen = longest * self.task.scored_rows, bool(self.training.lora)
        return flops(parameters, longest * rows * times, read, frozen=frozen)


@dataclass(frozen=True)
class Plan:
    """A study of one model that cannot be timed here."""

    name: str
    model: str
    parameters: int | None
    """Without embeddings; None where no configuration can be had."""
    tasks: tuple[PlannedTask, ...]
    lacking: tuple[str, ...]
    """What is not on this machine, one line each."""

    @property
    def trials(self) -> int:
        """All of them."""
        return sum(task.trials for task in self.tasks)

    def seconds_on(self, gpu: str) -> float:
        """Of all trials on one GPU, were every row as long as ``max_length``; 0 where the parameters are unknown."""
        parameters = self.parameters or 0
        return sum(one.trials * seconds_on(gpu, one.flops(parameters), one.training.precision) for one in self.tasks)


def plans(path: Path, changes: Changes = AS_WRITTEN) -> tuple[Study | Plan, ...]:
    """What a study file asks for, one for each model: a study where everything is here, else a plan.

    Neither weights nor data are downloaded. Numbers of rows are the data's, or the benchmark's official ones.

    Args:
        path: as for `noisytune.lab.studies.file.read_studies`.
        changes: the same.

    Raises:
        ConfigError: as `noisytune.lab.studies.file.read_studies`.
        DataError: data that are here are wrong, or data that are not here belong to no benchmark.
    """
    asked = StudyFile.read(path, changes)
    with local_files_only():
        tasks, lacking = _tasks(asked)
        models = [_model(name) for name in asked.models]
    refuse_twins(models)
    loaded = [task for task in tasks if isinstance(task, TaskData)]
    if lacking or any(isinstance(model, str) for model in models):
        return tuple(_plan(asked, model, tasks, lacking) for model in models)
    return tuple(asked.study(model, tuple(loaded)) for model in models if isinstance(model, Model))


def _tasks(asked: StudyFile) -> tuple[list[TaskData | Expected], tuple[str, ...]]:
    """Tasks that are here, what is expected of the others, and their names."""
    found: list[TaskData | Expected] = []
    lacking = []
    for wanted in asked.wanted:
        for one in _each(wanted):
            try:
                found += asked.load(one)
            except DataError:
                official = expected(one.name, one.options)
                if official is None or one.options.data_dir:
                    raise
                lacking.append(one.name)
                training = {key: value for key, value in official.training.items() if key not in asked.given(one)}
                found += official.in_shares(asked.shares, training | one.training)
    return found, tuple(lacking)


def _each(wanted: Wanted) -> Sequence[Wanted]:
    """The tasks that a name stands for, where they come from the Hub."""
    if wanted.name not in BENCHMARKS or wanted.options.data_dir:
        return [wanted]
    asked = set(wanted.options.languages)
    return [
        replace(wanted, name=name, options=fitting(name, wanted.options))
        for name in TASKS
        if name.startswith(f"{wanted.name}/") and (not asked or asked & set(languages_of(name)))
    ]


def _model(name: str | None) -> Model | str:
    """The model, or its name where it is not here."""
    try:
        return Model.find(name)
    except DataError:
        if name is None:
            raise
        return name


def _plan(asked: StudyFile, model: Model | str, tasks: Sequence[TaskData | Expected], lacking: tuple[str, ...]) -> Plan:
    name = model if isinstance(model, str) else model.name
    config = _config(model) if isinstance(model, str) else model.path
    missing = [f"the data of {', '.join(lacking)}"] if lacking else []
    if isinstance(model, str):
        missing.append(f"the weights of {model}" + ("" if config else ", nor their configuration"))
    rows = [task if isinstance(task, Expected) else Expected.of(task) for task in tasks]
    trained = {(one.name, one.train_rows) for one in rows if not one.trained_on}
    settings = [replace(asked.settings, **one.training) for one in rows]
    arms = asked.all_arms([(training, one.train_rows) for training, one in zip(settings, rows, strict=True)])
    planned: list[PlannedTask] = []
    for one, training in zip(rows, settings, strict=True):
        source = (one.trained_on, one.train_rows)
        planned.append(PlannedTask(one, arms, len(asked.seeds), training, source in trained))
        trained |= {source} if one.trained_on else set()
    return Plan(asked.name, name, _parameters(config) if config else None, tuple(planned), tuple(missing))


def _config(name: str) -> Path | None:
    """The folder of a model's configuration, which is small enough to be downloaded; None where it cannot be had."""
    if (Path(name) / CONFIG).is_file():
        return Path(name)
    try:
        return fetch(f"model {name!r}", name, "a directory", allow_patterns=[CONFIG])
    except DataError:
        return None


def _parameters(folder: Path) -> int | None:
    """Of the model that a configuration describes, without embeddings; None where transformers does not know it."""
    model = without_weights(folder)
    return None if model is None else sum(int(one.numel()) for one in model.parameters()) - looked_up(model)
