"""What is compared: the arms, from noises and from names, and the seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from noisytune._settings import check, like, settings_of, several
from noisytune.config import TOKEN_EMBEDDINGS, NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.lab.tasks import XTREME
from noisytune.lab.trials.arm import PLAIN, Arm, methods_of, passes_of
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.methods import make


@dataclass(frozen=True, kw_only=True)
class Noises:
    """Noises to compare: an arm for each combination of strength, distribution and scale.

    Raises:
        ConfigError: no value, one twice, or one out of range.

    >>> [arm.name for arm in Noises(noise_lambda=(0.1, 0.2)).arms()]
    ['noisytune(0.1)', 'noisytune(0.2)']
    """

    noise_lambda: tuple[float, ...] = several(NoisyTuneConfig, "noise_lambda", (0.15,))
    """0 is the baseline, which is always there."""
    distribution: tuple[str, ...] = several(NoisyTuneConfig, "distribution", ("uniform",))
    scale: tuple[str, ...] = several(NoisyTuneConfig, "scale", ("matrix",))
    scope: str = like(NoisyTuneConfig, "scope")
    include: tuple[str, ...] = like(NoisyTuneConfig, "include")
    exclude: tuple[str, ...] = like(NoisyTuneConfig, "exclude")

    def __post_init__(self) -> None:
        check(self)

    def arms(self) -> tuple[Arm, ...]:
        """In order, strengths first."""
        shared = {"scope": self.scope, "include": self.include, "exclude": self.exclude}
        return tuple(
            Arm.of(
                make("noisytune", {"noise_lambda": strength, "distribution": distribution, "scale": scale, **shared})
            )
            for strength, distribution, scale in product(self.noise_lambda, self.distribution, self.scale)
            if strength > 0
        )

    @classmethod
    def beside(cls, others: Sequence[str], settings: Mapping[str, Any]) -> tuple[Arm, ...]:
        """The arms that settings make beside those that are given by name: none, unless a strength is given too.

        Args:
            others: arms by name; may be empty.
            settings: fields of this class, those that were given.

        Raises:
            ConfigError: a setting would have no effect.

        >>> Noises.beside(["mixout"], {}), [arm.name for arm in Noises.beside([], {})]
        ((), ['noisytune(0.15)'])
        """
        noises, usual = cls(**settings), cls()
        if not others or "noise_lambda" in settings:
            return noises.arms()
        for name in (each.name for each in fields(cls)):
            if getattr(noises, name) != getattr(usual, name):
                raise ConfigError(
                    f"{name} has no effect on arms that are given by name: write it into one, as in "
                    f"noisytune({name}=...), or give noise_lambda too"
                )
        return ()


def arms_of(*arms: str | Arm) -> tuple[Arm, ...]:
    """Plain fine-tuning, then each other arm once.

    Raises:
        ConfigError: there is no other, or one cannot be read.

    >>> [arm.name for arm in arms_of("noisytune", "plain", "noisytune(0.15)")]
    ['plain', 'noisytune(0.15)']
    """
    found = [PLAIN]
    for one in (Arm.parse(arm) if isinstance(arm, str) else arm for arm in arms):
        if one not in found:
            found.append(one)
    if len(found) == 1:
        raise ConfigError("only the baseline is asked for: give an arm, or noise_lambda above 0, to compare it with")
    return tuple(found)


EQUAL_COMPUTE = "Add plain fine-tuning on as many tokens as each arm that reads them more than once."
"""What `equal_compute` does, as an option."""


def equal_compute(arms: Sequence[Arm], trained: Sequence[tuple[TrainingSettings, int]]) -> tuple[Arm, ...]:
    """The arms, and plain fine-tuning that reads at least as many tokens as each of those that read more than it.

    The baseline stays the first. A longer training is a baseline of its own: its learning rate falls over all of it.

    Args:
        arms: of a study, the baseline first.
        trained: of each task, the settings with which it is trained and the number of training examples.

    Raises:
        ConfigError: the tasks are trained for different numbers of epochs, so that no single longer training fits.
    """
    found = list(arms)
    for arm in arms:
        lengths: set[tuple[str, int]] = set()
        for training, examples in trained:
            settings = replace(training, **arm.training)
            times = math.prod(passes_of(methods_of(arm.methods), settings, examples).values())
            name = "epochs" if settings.max_steps is None else "max_steps"
            if times > 1:
                lengths.add((name, math.ceil(round(times * getattr(settings, name), 6))))
        if len(lengths) > 1:
            raise ConfigError(
                f"equal_compute: {arm.name} needs baselines of different lengths on these tasks: run them one by one, "
                "or give epochs"
            )
        for name, length in lengths:
            longer = Arm(f"plain({name}={length})", (), {name: length})
            found += [longer] if longer not in found else []
    return tuple(found)


NO_NOISE_ON_TOKENS = (
    f"token embeddings get no noise, as in the paper on XTREME (exclude={TOKEN_EMBEDDINGS}); "
    "an exclude of yours counts instead"
)
"""Said where the arms of a comparison on XTREME are not as they were given."""


def arms_for(tasks: Iterable[str], arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms as the paper has them on these tasks: on XTREME token embeddings get no noise, unless an arm excludes.

    >>> [arm.name for arm in arms_for(["xtreme/xnli"], arms_of("noisytune(0.1)"))]
    ['plain', 'noisytune(0.1, exclude=@token_embeddings)']
    """
    if not any(name.strip().partition("/")[0] == XTREME for name in tasks):
        return tuple(arms)
    return tuple(map(_without_tokens, arms))


def _without_tokens(arm: Arm) -> Arm:
    everywhere = [one["method"] == "noisytune" and not one["exclude"] for one in arm.methods]
    if not any(everywhere):
        return arm
    changed = (
        {**one, "exclude": [TOKEN_EMBEDDINGS]} if here else one
        for one, here in zip(arm.methods, everywhere, strict=True)
    )
    return replace(Arm.of(*methods_of(list(changed))), training=arm.training)


def given_of(training: TrainingSettings | Mapping[str, Any] | None) -> set[str]:
    """The names of the training settings that are given; of a whole `TrainingSettings` those that differ from defaults.

    >>> given_of({"epochs": 3}), given_of(TrainingSettings(epochs=3, batch_size=4)), given_of(None)
    ({'epochs'}, {'batch_size'}, set())
    """
    if isinstance(training, TrainingSettings):
        return {name for name, field in settings_of(training).items() if getattr(training, name) != field.default}
    return set(training or ())


MOST_SEEDS = 100_000
"""Of a study."""


def seeds_of(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """Seeds from their number, or as they are.

    Raises:
        ConfigError: none, too many, or not whole numbers.

    >>> seeds_of(3), seeds_of([7, 5])
    ((0, 1, 2), (7, 5))
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= MOST_SEEDS:
        return tuple(range(seeds))
    if isinstance(seeds, Iterable) and not isinstance(seeds, str | bytes):
        found = tuple(seeds)
        if 0 < len(found) <= MOST_SEEDS and all(type(seed) is int for seed in found):
            return found
    raise ConfigError(
        f"seeds must be a number of seeds, 1 to {MOST_SEEDS:,}, or a list of so many whole numbers, got {seeds!r}"
    )
