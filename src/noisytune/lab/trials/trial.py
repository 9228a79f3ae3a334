"""What a trial is: one arm, one task, one seed, and the training that every trial of a study shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from noisytune.lab.trials.arm import Arm
from noisytune.lab.trials.head import NEW, is_fine_tuned
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.records import digest

if TYPE_CHECKING:
    from noisytune._pretrained import Model
    from noisytune.lab.tasks import TaskData


@dataclass(frozen=True)
class Trial:
    """One fine-tuning run, resolved: nothing but these settings decides its outcome."""

    settings: dict[str, Any]
    """As in `noisytune.records.TrialRecord.settings`."""

    @classmethod
    def resolve(cls, model: Model, task: TaskData, arm: Arm, seed: int, training: TrainingSettings) -> Self:
        """Write down everything that decides the outcome.

        Every metric is computed, so the primary one is part of it only where it selects the epoch.
        """
        source = task.trained_on
        trained = replace(training, **(source or task).training | arm.training).for_model(model)
        # Trials of earlier versions used such a head: theirs are other keys.
        head = {"head": NEW} if not trained.keep_head and is_fine_tuned(model.path) else {}
        selects = {"metric": (source or task).metric} if trained.select == "best" else {}
        base = {"trained_on": {"name": source.name, "digest": source.training_digest}} if source else {}
        return cls(
            {
                "model": {"name": model.name, "digest": model.digest, **head},
                "task": {
                    "name": task.name,
                    "digest": task.digest,
                    "kind": task.kind,
                    "labels": list(task.labels),
                    "train_size": len(task.train),
                    "dev_size": len(task.dev),
                    **selects,
                    **task.roles,
                    **base,
                },
                "arm": {"name": arm.name, "methods": list(arm.methods)},
                "seed": seed,
                "training": trained.to_dict(),
            }
        )

    @cached_property
    def key(self) -> str:
        """`noisytune.records.digest` of the settings."""
        return digest(self.settings)

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.settings["task"]["name"])

    @property
    def arm(self) -> str:
        """The arm's name."""
        return str(self.settings["arm"]["name"])

    @property
    def seed(self) -> int:
        """The seed of head, data order, dropout, noise and methods."""
        return int(self.settings["seed"])

    @property
    def primary(self) -> tuple[str, ...]:
        """The splits whose mean is the score; empty: the first that is scored."""
        task = self.settings["task"]
        return tuple(task.get("primary", [task["select"]] if "select" in task else []))

    @property
    def examples(self) -> int:
        """Training examples that it sees, for a guess at how long it takes beside others of its study; 0 where only a
        script of the user's knows."""
        if "epochs" not in self.settings["training"]:
            return 0
        training = TrainingSettings.from_dict(self.settings["training"])
        return training.batch_size * training.steps(int(self.settings["task"]["train_size"]))

    @property
    def label(self) -> str:
        """For people and for the names of runs in trackers: ``topics-plain-seed0``."""
        return f"{self.task}-{self.arm}-seed{self.seed}"

    @property
    def plan_entry(self) -> dict[str, Any]:
        """As in `noisytune.records.StudyRecord.trials`."""
        return {"key": self.key, "task": self.task, "arm": self.arm, "seed": self.seed}
