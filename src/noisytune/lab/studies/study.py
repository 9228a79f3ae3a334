"""What a study is: arms x tasks x seeds, planned seed by seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from noisytune._pretrained import Model, positions
from noisytune.errors import ConfigError
from noisytune.lab.store import file_name
from noisytune.lab.tasks import TaskData, noticed
from noisytune.lab.trials.arm import Arm
from noisytune.lab.trials.head import about_head
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord

MOST_TRIALS = 200_000
"""Of one study."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to compare.

    Raises:
        ConfigError: nothing to compare, a name or seed that occurs twice, a seed out of range, or too many trials.

    >>> from noisytune.lab.tasks import task_from_rows
    >>> from noisytune.lab.trials.arm import PLAIN
    >>> rows = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in range(10)]
    >>> study = Study(
    ...     name="two words",
    ...     model=Model.find(),
    ...     tasks=(task_from_rows(rows),),
    ...     arms=(PLAIN, Arm.parse("noisytune")),
    ...     seeds=range(4),
    ...     training=TrainingSettings(),
    ...     margin=1.0,
    ... )
    >>> len(study.plan), study.plan[1].label, study.training.learning_rate
    (8, 'rows-noisytune(0.15)-seed0', 0.0002)
    >>> study.file_name, [examples for settings, examples in study.trained], study.notices[0][:44]
    ('two_words-all-MiniLM-L6-v2', [16], 'rows: classification, 16 train and 4 dev exa')
    >>> study.record.arms, study.record.seeds  # what a run folder keeps
    (['plain', 'noisytune(0.15)'], [0, 1, 2, 3])
    """

    name: str
    """For the report's title."""
    model: Model
    tasks: tuple[TaskData, ...]
    arms: tuple[Arm, ...]
    """The first is the baseline."""
    seeds: Sequence[int]
    """0 <= seed < 2**32, in the order in which they are run."""
    training: TrainingSettings
    """What depends on the model is put in: see `TrainingSettings.for_model`."""
    margin: float
    """Differences within +- this many points count as equivalent, >= 0."""
    search: dict[str, Any] | None = None
    """How the arms' settings were chosen: as in `noisytune.records.StudyRecord.search`."""

    def __post_init__(self) -> None:
        trials = len(self.tasks) * len(self.arms) * len(self.seeds)
        if trials > MOST_TRIALS:
            raise ConfigError(f"{trials:,} trials are more than {MOST_TRIALS:,}: give fewer seeds, arms or tasks")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for what, names in (
            ("task", [task.name for task in self.tasks]),
            ("arm", [arm.name for arm in self.arms]),
            ("seed", self.seeds),
        ):
            if not names:
                raise ConfigError(f"a study needs at least one {what}")
            name, times = Counter[object](names).most_common(1)[0]
            if times > 1:
                raise ConfigError(f"the {what} {name!r} is given twice")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise ConfigError(f"seed {seed}: must be a whole number, 0 <= seed < 2**32")
        if not 0 <= self.margin < math.inf:
            raise ConfigError(f"margin must be a finite number of points, >= 0, got {self.margin}")
        object.__setattr__(self, "training", self.training.for_model(self.model))
        limit = positions(self.model.path)
        object.__setattr__(self, "tasks", tuple(_within(task, limit) for task in self.tasks))
        if self.training.select == "best":
            for task in self.tasks:
                refuse_choosing(task.trained_on or task, self.training.protocol)

    @cached_property
    def plan(self) -> tuple[Trial, ...]:
        """Every trial: seed by seed, so that all arms are equally far at any time, and the baseline first."""
        return tuple(
            Trial.resolve(self.model, task, arm, seed, self.training)
            for seed in self.seeds
            for task in self.tasks
            for arm in self.arms
        )

    def trained_for(self, task: TaskData) -> TaskData:
        """The task that is trained on for a task of the study: itself, or one of the study's own, if there is one.

        Args:
            task: of the study.
        """
        if not task.trained_on:
            return task
        wanted = task.training_digest, task.trained_on.training
        own = (other for other in self.tasks if not other.trained_on)
        return next((other for other in own if (other.training_digest, other.training) == wanted), task.trained_on)

    def training_for(self, task: TaskData) -> TrainingSettings:
        """How a task of the study is trained, where its arm does not say otherwise.

        Args:
            task: of the study.
        """
        return replace(self.training, **(task.trained_on or task).training)

    @property
    def trained(self) -> list[tuple[TrainingSettings, int]]:
        """Of each task, how it is trained and the number of training examples."""
        return [(self.training_for(task), len(task.train)) for task in self.tasks]

    def training_of(self, trial: Trial) -> Trial:
        """The trial whose training a trial of the plan rests on: itself, unless its task is trained on another.

        Args:
            trial: of the plan.
        """
        task = self._by_name[trial.task]
        if not task.trained_on:
            return trial
        arm = next(arm for arm in self.arms if arm.name == trial.arm)
        return Trial.resolve(self.model, self.trained_for(task), arm, trial.seed, self.training)

    @cached_property
    def _by_name(self) -> dict[str, TaskData]:
        return {task.name: task for task in self.tasks}

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know of its model and its data before anything is trained."""
        head = about_head(self.model.name, self.model.path, self.training.keep_head)
        return (*head, *(notice for task in self.tasks for notice in task.notices))

    @property
    def file_name(self) -> str:
        """What to call it where several studies share a folder: its name and its model's."""
        return file_name(self.name, self.model.name.rsplit("/")[-1])

    @cached_property
    def record(self) -> StudyRecord:
        """The study as it is written down."""
        return StudyRecord(
            name=self.name,
            model={"name": self.model.name, "digest": self.model.digest},
            tasks=[
                {
                    "name": task.name,
                    "kind": task.kind,
                    "metric": task.metric,
                    "metric_label": task.metric_label,
                    "labels": list(task.labels),
                    "train_size": len(task.train),
                    "dev_size": len(task.dev),
                    "majority": task.majority,
                    "digest": task.digest,
                    "part_of": task.part_of,
                    **({"training": task.training} if task.training else {}),
                    "facts": task.facts,
                }
                for task in self.tasks
            ],
            arms=[arm.name for arm in self.arms],
            seeds=list(self.seeds),
            training=self.training.to_dict(),
            margin=self.margin,
            trials=[trial.plan_entry for trial in self.plan],
            search=self.search,
        )


def refuse_choosing(task: TaskData, protocol: str) -> None:
    """See that a task's metric can choose between epochs or settings where a protocol looks.

    Raises:
        ConfigError: it is undefined on examples to learn from, and the protocol holds some of them out.
    """
    if protocol == "clean" and task.metric in task.of_kind.undefined_on_train:
        raise ConfigError(
            f"{task.name}: protocol clean chooses on a part of train, where {task.metric} is undefined: examples to "
            "learn from have the right answer alone; choose by another metric, on dev (protocol paper), or not at all"
        )


def _within(task: TaskData, positions: int | None) -> TaskData:
    """The task with rows as long as a model has positions, where its own settings ask for longer ones."""
    own = (task.trained_on or task).training.get("max_length", 0)
    if positions is None or own <= positions:
        return task
    if task.trained_on:
        return replace(task, trained_on=_within(task.trained_on, positions))
    shorter = replace(task, training=task.training | {"max_length": positions})
    return noticed(shorter, f"{task.name}: the model has {positions} positions: max_length is that, not {own}")
