"""What noise to add: one frozen, validated object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypedDict, Unpack, get_args

from noisytune._settings import check, choice, common, nearest, number, settings_of, whole, words
from noisytune.errors import ConfigError

Distribution = Literal["uniform", "gaussian"]
Scale = Literal["matrix", "global"]
Scope = Literal["pretrained", "all"]

TOKEN_EMBEDDINGS = "@token_embeddings"
"""A role, for ``include`` and ``exclude``: the tables in which a model looks up its input tokens, and what is tied to
them. Found from the model's input embeddings; on disk from what is known of the model type."""

POSITIONS = "@positions"
"""A role: embeddings of positions, absolute and relative."""

NORMS = "@norms"
"""A role: weights and biases of layer norm and its kin."""

BIASES = "@biases"
"""A role: biases, those of norms too."""

ROUTERS = "@routers"
"""A role: what chooses among experts."""

ROLES = (TOKEN_EMBEDDINGS, POSITIONS, NORMS, BIASES, ROUTERS)
"""What may stand among the globs of ``include`` and ``exclude``. All but the first go by names, on both sides alike."""

_GLOBS = f"globs or roles ({', '.join(ROLES)}), separated by |"


def _names_tensors(word: str) -> bool:
    """Whether a word is a glob or a role that there is."""
    return not word.startswith("@") or word in ROLES


class NoiseSettings(TypedDict, total=False):
    """The fields of `NoisyTuneConfig` as keyword arguments, all optional, for editors and type checkers.

    >>> settings: NoiseSettings = {"noise_lambda": 0.1, "exclude": "@token_embeddings"}
    >>> NoisyTuneConfig(**settings).noise_lambda
    0.1
    """

    noise_lambda: float
    seed: int
    distribution: Distribution
    scale: Scale
    scope: Scope
    include: str | Sequence[str]
    exclude: str | Sequence[str]


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
        >>> NoisyTuneConfig(noise_lambda=0.1, exclude="@token_embeddings|*.bias").exclude
        ('@token_embeddings', '*.bias')

    Source: Wu et al. 2022, "NoisyTune: A Little Noise Can Help You Finetune Pretrained Language Models Better", ACL.
    """

    noise_lambda: float = common(
        number(
            0.15,
            "Add noise of this width, in standard deviations of each tensor.",
            "a finite number >= 0",
            lambda x: x >= 0,
            "L",
        )
    )
    """Width of the noise in standard deviations of the tensor, >= 0. The paper uses 0.15 on GLUE and 0.1 on XTREME; 0
    adds nothing."""
    seed: int = common(
        whole(0, "Select the noise by this number.", "a whole number, 0 <= seed < 2**64", lambda n: 0 <= n < 2**64)
    )
    """0 <= seed < 2**64. Selects the noise, together with each tensor's name."""
    distribution: Distribution = choice(
        "uniform", "Draw the noise from this distribution: uniform or gaussian.", *get_args(Distribution)
    )
    """"uniform", or "gaussian" of the same variance, lambda**2 / 12."""
    scale: Scale = choice(
        "matrix", "Scale it by each tensor's own std (matrix), or by one for all (global).", *get_args(Scale)
    )
    """"matrix": times each tensor's own standard deviation. "global": times the one pooled over all perturbed
    tensors."""
    scope: Scope = choice(
        "pretrained", "Leave a new head alone (pretrained), or perturb it too (all).", *get_args(Scope)
    )
    """"pretrained": leave freshly initialised tensors, such as a new head, alone. "all": perturb them too, as the
    paper's snippet does."""
    include: tuple[str, ...] = words(
        "Perturb only tensors that match these globs.", _GLOBS, metavar="GLOB", holds=_names_tensors
    )
    """Globs of tensor names to perturb, or `ROLES`; empty means all."""
    exclude: tuple[str, ...] = words(
        f"Leave tensors alone that match these globs or roles: {', '.join(ROLES)}.",
        _GLOBS,
        metavar="GLOB",
        holds=_names_tensors,
    )
    """Globs of tensor names to leave alone, or `ROLES`; wins over ``include``. For multilingual models the paper leaves
    out the token embeddings: ``("@token_embeddings",)``."""

    def __post_init__(self) -> None:
        check(self)

    def replace(self, **changes: Unpack[NoiseSettings]) -> Self:
        """A copy with some settings changed, validated again.

        Args:
            **changes: fields and their new values.

        Raises:
            ConfigError: a setting is unknown or its value is not allowed.

        >>> NoisyTuneConfig(seed=1).replace(seed=2).seed
        2
        """
        return self.from_dict(self.to_dict() | changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values.

        >>> NoisyTuneConfig(exclude="*.bias").to_dict()["exclude"]
        ['*.bias']
        """
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Args:
            settings: names and values; those that are missing take their defaults.

        >>> NoisyTuneConfig.from_dict({"noise_lambda": 0.1}).seed
        0

        Raises:
            ConfigError: a setting is unknown (with the nearest known one) or its value is not allowed.
        """
        known = settings_of(cls)
        for name in settings:
            if name not in known:
                raise ConfigError(f"unknown setting {name!r}: {nearest(name, known)}")
        return cls(**settings)
