"""How every trial of a study is trained: what decides its outcome besides model, task, arm and seed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from noisytune.errors import ConfigError


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


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {allowed}, got {value!r}")
