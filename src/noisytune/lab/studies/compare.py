"""What is compared: the arms, from noises and from names, and the seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from noisytune._settings import check, like, several
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.lab.trials.arm import PLAIN, Arm
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
