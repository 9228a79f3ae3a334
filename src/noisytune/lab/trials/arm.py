"""An arm: the methods that one treatment of a study applies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from noisytune.lab.trials.settings import TrainingSettings
from noisytune.methods import Method, combine, label, make, parse


@dataclass(frozen=True)
class Arm:
    """One of the treatments that a study compares.

    >>> Arm.parse("noisytune(0.15)+recadam").name
    'noisytune(0.15)+recadam'
    """

    name: str
    methods: tuple[dict[str, Any], ...] = ()
    """In the order of application, each ``{"method": name, setting: value, ...}`` with every setting. None of them:
    plain fine-tuning."""
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of `noisytune.lab.trials.settings.TrainingSettings` in which this arm differs from its study."""

    @classmethod
    def of(cls, *methods: Method) -> Self:
        """The arm that applies these methods, named after everything that is not the default.

        Args:
            *methods: none of them is plain fine-tuning.

        Raises:
            ConfigError: they cannot be combined.

        >>> Arm.of(*parse("noisytune(0.1, distribution=gaussian)")).name
        'noisytune(0.1, distribution=gaussian)'
        """
        stack = combine(methods)
        return cls(label(stack), tuple(_written(method) for method in stack))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The arm as `noisytune.methods.parse` reads it.

        Args:
            text: methods joined by ``+``, settings in parentheses; ``"plain"`` is none.

        Raises:
            ConfigError: unknown method or setting, a value out of range, or a combination that makes no sense.

        >>> Arm.parse("noisytune(0.15)").methods[0]["noise_lambda"]
        0.15
        """
        return cls.of(*parse(text))


def methods_of(planned: Sequence[dict[str, Any]]) -> tuple[Method, ...]:
    """The inverse of `Arm.of`: `Arm.methods` as methods."""
    about = ("method", "revision")
    return combine(make(one["method"], {key: one[key] for key in one if key not in about}) for one in planned)


def passes_of(methods: Iterable[Method], training: TrainingSettings, examples: int) -> dict[str, float]:
    """How often each method has a training's tokens read, where that is not once, as in plain training.

    Args:
        methods: of an arm. What the arm costs is the product.
        training: its settings.
        examples: that it is trained on.

    >>> passes_of(parse("noisytune(soup=3)+rdrop"), TrainingSettings(), 160)
    {'noisytune': 3.0, 'rdrop': 2.0}
    """
    batches = math.ceil(examples / training.batch_size)
    epochs = _epochs(training, batches)
    found = {method.name: method.passes(epochs, batches) for method in methods} if epochs else {}
    return {name: passes for name, passes in found.items() if passes != 1}


def reads(arm: Arm, training: TrainingSettings, examples: int) -> float:
    """How often a training of the arm reads each of its examples, on average: epochs, times what its methods add.

    Args:
        arm: whose own settings count before the others.
        training: settings of the study.
        examples: that are trained on.

    >>> reads(Arm.parse("sam"), TrainingSettings(epochs=3), 160), reads(Arm.of(), TrainingSettings(max_steps=5), 160)
    (6.0, 0.5)
    """
    settings = replace(training, **arm.training)
    passes = passes_of(methods_of(arm.methods), settings, examples)
    return _epochs(settings, math.ceil(examples / settings.batch_size)) * math.prod(passes.values())


def _epochs(training: TrainingSettings, batches: int) -> float:
    """Batches that are trained on, in those of one epoch."""
    if training.max_steps is None:
        return training.epochs
    return training.max_steps * training.gradient_accumulation / batches


def _written(method: Method) -> dict[str, Any]:
    """A method with its settings, and with its revision once there is a second."""
    revision = {"revision": method.revision} if method.revision > 1 else {}
    return {"method": method.name} | revision | method.settings


PLAIN = Arm.of()
"""Plain fine-tuning: the baseline."""
