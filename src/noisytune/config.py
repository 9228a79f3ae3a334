"""What noise to add: one frozen, validated object."""

from __future__ import annotations

import math
import operator
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

from noisytune.errors import ConfigError

Distribution = Literal["uniform", "gaussian"]
Scale = Literal["matrix", "global"]
Scope = Literal["pretrained", "all"]


@dataclass(frozen=True, kw_only=True)
class NoisyTuneConfig:
    """The settings of NoisyTune.

    Equation (1) of the paper: W~ = W + U(-lambda/2, lambda/2) * std(W), for each parameter tensor. Section 3.3's five
    noise types are ``noise_lambda=0`` and the four combinations of ``distribution`` and ``scale``.

    Raises:
        ConfigError: a value is out of range or of the wrong type; says which and what is allowed.

    Example:
        >>> NoisyTuneConfig(noise_lambda=0.1, seed=7).replace(distribution="gaussian").distribution
        'gaussian'

    Source: Wu et al. 2022, "NoisyTune: A Little Noise Can Help You Finetune Pretrained Language Models Better", ACL.
    """

    noise_lambda: float = 0.15
    """Width of the noise in standard deviations of the tensor, >= 0. The paper uses 0.15 on GLUE and 0.1 on XTREME; 0
    adds nothing."""
    seed: int = 0
    """0 <= seed < 2**64. Selects the noise, together with each tensor's name."""
    distribution: Distribution = "uniform"
    """"uniform", or "gaussian" of the same variance, lambda**2 / 12."""
    scale: Scale = "matrix"
    """"matrix": times each tensor's own standard deviation. "global": times the one pooled over all perturbed
    tensors."""
    scope: Scope = "pretrained"
    """"pretrained": leave freshly initialised tensors, such as a new head, alone. "all": perturb them too, as the
    paper's snippet does."""
    include: tuple[str, ...] = ()
    """Globs of tensor names to perturb; empty means all."""
    exclude: tuple[str, ...] = ()
    """Globs of tensor names to leave alone; wins over ``include``. For multilingual models the paper leaves out the
    token embeddings: ``("*word_embeddings*",)``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_lambda", _finite_non_negative("noise_lambda", self.noise_lambda))
        object.__setattr__(self, "seed", _seed(self.seed))
        for name, allowed in (("distribution", Distribution), ("scale", Scale), ("scope", Scope)):
            _one_of(name, getattr(self, name), get_args(allowed))
        for name in ("include", "exclude"):
            object.__setattr__(self, name, _globs(name, getattr(self, name)))

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, validated again."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: a setting is unknown (with the nearest known one) or its value is not allowed.
        """
        known = [f.name for f in fields(cls)]
        for name in settings:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise ConfigError(f"unknown setting {name!r}: {hint}")
        return cls(**settings)


def _finite_non_negative(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise ConfigError(f"{name} must be a finite number >= 0, got {value!r}")
    return number


def _seed(value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number < 2**64:
        raise ConfigError(f"seed must be a whole number, 0 <= seed < 2**64, got {value!r}")
    return number


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")


def _globs(name: str, value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    globs = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(glob, str) and glob for glob in globs):
        raise ConfigError(f"{name} must be globs such as '*word_embeddings*', got {value!r}")
    return globs
