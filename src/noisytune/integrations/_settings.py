"""What a user asked a host for: settings of the noise, whose seed is the host's own unless it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from noisytune._perturb import steps as perturbation
from noisytune.config import NoisyTuneConfig


@dataclass(frozen=True)
class Asked:
    """Settings, and whether the seed among them was chosen by the user."""

    config: NoisyTuneConfig
    seed_given: bool

    @classmethod
    def of(cls, config: NoisyTuneConfig | None, settings: Mapping[str, Any]) -> Self:
        """From a config, whose seed counts as given, or from settings by name.

        Raises:
            ConfigError: both were given, or a setting is unknown or out of range.

        >>> Asked.of(None, {"noise_lambda": 0.1}).seed_given, Asked.of(NoisyTuneConfig(), {}).seed_given
        (False, True)
        """
        return cls(perturbation.settled(config, settings), config is not None or "seed" in settings)

    def with_seed_of(self, host_seed: int | None) -> NoisyTuneConfig:
        """The settings for a host that trains with this seed; None where it has none.

        >>> Asked.of(None, {}).with_seed_of(42).seed, Asked.of(None, {"seed": 7}).with_seed_of(42).seed
        (42, 7)
        """
        return self.config if self.seed_given or host_seed is None else self.config.replace(seed=host_seed)

    def origin(self, host_seed: int | None, whose: str) -> str:
        """For the line in the log: where the seed comes from.

        Args:
            host_seed: as for `with_seed_of`.
            whose: the host's setting, such as "TrainingArguments.seed".

        >>> Asked.of(None, {}).origin(42, "TrainingArguments.seed")
        ' (of TrainingArguments.seed)'
        """
        if self.seed_given:
            return ""
        return f" (the default: {whose} is not set)" if host_seed is None else f" (of {whose})"
