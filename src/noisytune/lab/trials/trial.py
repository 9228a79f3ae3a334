"""What a trial is: one arm, one task, one seed, and the training that every trial of a study shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from noisytune.errors import ConfigError
from noisytune.methods import Method, combine, label, make, parse
from noisytune.records import digest

if TYPE_CHECKING:
    from noisytune._pretrained import Model
    from noisytune.lab.tasks import TaskData


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How every trial of a study is trained: AdamW, the learning rate falling linearly to zero.

    Raises:
        ConfigError: a value is out of range; says which and what is allowed.

    >>> TrainingSettings(epochs=3, learning_rate=1e-4).batch_size
    16
    """

    epochs: int = 3
    """Passes over the training examples, >= 1."""
    learning_rate: float = 5e-5
    """The largest learning rate, > 0."""
    batch_size: int = 16
    """Examples a step, >= 1. The last batch of an epoch may be smaller."""
    max_length: int = 128
    """Tokens; longer texts are cut."""
    warmup: float = 0.0
    """Share of the steps in which the learning rate rises, 0 <= warmup < 1."""
    weight_decay: float = 0.0
    """>= 0; biases and layer norms are exempt."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm, > 0."""
    max_steps: int | None = None
    """Stop after so many steps, whatever ``epochs`` says."""
    schedule: Literal["linear"] = "linear"
    select: Literal["last", "best"] = "last"
    """Which epoch's model predicts: the last one, or the one with the best primary score (the first of equal ones)."""
    protocol: Literal["paper", "clean"] = "paper"
    """Where ``select="best"`` looks, while dev is reported. ``paper``: on dev itself, which flatters. ``clean``: on a
    tenth of the training examples, which is not trained on. With ``select="last"`` nothing is chosen: both train on
    everything and come to the same."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_steps"):
            value = getattr(self, name)
            if value is not None or name != "max_steps":
                _require(type(value) is int and value >= 1, name, value, "a whole number >= 1")
        # Two more than the start and end marks that most tokenizers add.
        _require(
            type(self.max_length) is int and self.max_length >= 4, "max_length", self.max_length, "a whole number >= 4"
        )
        for name in ("learning_rate", "max_grad_norm"):
            _require(self._number(name) > 0, name, getattr(self, name), "a finite number > 0")
        _require(self._number("weight_decay") >= 0, "weight_decay", self.weight_decay, "a finite number >= 0")
        _require(0 <= self._number("warmup") < 1, "warmup", self.warmup, "a share of the steps, 0 <= warmup < 1")
        _require(self.schedule == "linear", "schedule", self.schedule, "'linear'")
        _require(self.select in ("last", "best"), "select", self.select, "'last' or 'best'")
        _require(self.protocol in ("paper", "clean"), "protocol", self.protocol, "'paper' or 'clean'")

    def _number(self, name: str) -> float:
        """The value as a float, put back as one: 1 and 1.0 must give the same key. NaN where it is not a number."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return math.nan
        object.__setattr__(self, name, float(value))
        return float(value)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**settings)


@dataclass(frozen=True)
class Arm:
    """One of the treatments that a study compares."""

    name: str
    methods: tuple[dict[str, Any], ...] = ()
    """In the order of application, each ``{"method": name, setting: value, ...}`` with every setting. None of them:
    plain fine-tuning."""
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of `TrainingSettings` in which this arm differs from its study."""

    @classmethod
    def of(cls, *methods: Method) -> Self:
        """The arm that applies these methods, named after everything that is not the default.

        Raises:
            ConfigError: they cannot be combined.

        >>> Arm.of(*parse("noisytune(0.1, distribution=gaussian)")).name
        'noisytune(0.1, distribution=gaussian)'
        """
        stack = combine(methods)
        return cls(label(stack), tuple({"method": method.name} | method.settings for method in stack))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The arm as `noisytune.methods.parse` reads it.

        >>> Arm.parse("noisytune(0.15)").methods[0]["noise_lambda"]
        0.15
        """
        return cls.of(*parse(text))


def methods_of(planned: Sequence[dict[str, Any]]) -> tuple[Method, ...]:
    """The inverse of `Arm.of`: `Arm.methods` as methods."""
    return combine(make(one["method"], {key: one[key] for key in one if key != "method"}) for one in planned)


PLAIN = Arm.of()
"""Plain fine-tuning: the baseline."""


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
        selects = {"metric": task.metric} if training.select == "best" else {}
        return cls(
            {
                "model": {"name": model.name, "digest": model.digest},
                "task": {
                    "name": task.name,
                    "digest": task.digest,
                    "kind": task.kind,
                    "labels": list(task.labels),
                    "train_size": len(task.train),
                    "dev_size": len(task.dev),
                    **selects,
                },
                "arm": {"name": arm.name, "methods": list(arm.methods)},
                "seed": seed,
                "training": replace(training, **arm.training).to_dict(),
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
    def label(self) -> str:
        """For people and for the names of runs in trackers: ``topics-plain-seed0``."""
        return f"{self.task}-{self.arm}-seed{self.seed}"

    @property
    def plan_entry(self) -> dict[str, Any]:
        """As in `noisytune.records.StudyRecord.trials`."""
        return {"key": self.key, "task": self.task, "arm": self.arm, "seed": self.seed}


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {allowed}, got {value!r}")
