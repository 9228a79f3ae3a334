"""LoRA: small matrices are trained beside a model's own, which stay as they are. The settings of it, as one text.

Hu et al. 2022; DoRA: Liu et al. 2024; rsLoRA: Kalajdzievski 2023; PiSSA: Meng et al. 2024. PEFT does the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from noisytune._settings import check, nearest, number, settings_of, switch, whole, words
from noisytune.errors import ConfigError

REFUSED = ("child_tuning", "l2sp", "llrd", "mixout", "recadam", "reinit")
"""Methods that change how a model's own weights are trained: LoRA does not train them."""
ALLOWED = "settings such as r=16,alpha=32 (and dropout, targets, dora, rslora, pissa)"


@dataclass(frozen=True, kw_only=True)
class Lora:
    """How the small matrices are made.

    >>> Lora.read("alpha=32, r=8, targets=q_proj|v_proj, dora").text
    'r=8,alpha=32,targets=q_proj|v_proj,dora=true'
    """

    r: int = whole(16, "Rank of the matrices.", "a whole number >= 1", lambda n: n >= 1)
    alpha: float = number(32.0, "Their product counts alpha / r times.", "a finite number > 0", lambda x: x > 0)
    dropout: float = number(0.0, "Dropout of what goes into them.", "0 <= dropout < 1", lambda x: 0 <= x < 1)
    targets: tuple[str, ...] = words("Layers that get them. Default: all linear ones but the head.", "names of layers")
    """Ends of names, such as ``q_proj``."""
    dora: bool = switch("Train each row's length apart from its direction.")
    rslora: bool = switch("Count alpha by the root of r.")
    pissa: bool = switch("Start from the largest singular values of the weights, noise included.")

    def __post_init__(self) -> None:
        check(self, "lora: ")

    @classmethod
    def read(cls, given: Any) -> Self:
        """From a text, or from settings by name.

        Raises:
            ConfigError: a name that is none of its settings, one twice, or a value out of range.
            TypeError: neither.
        """
        if isinstance(given, Mapping):
            values = dict(given)
        elif isinstance(given, str):
            parts = [part.strip().partition("=") for part in given.split(",") if part.strip()]
            values = {name.strip(): value.strip() if equals else "true" for name, equals, value in parts}
            if len(values) < len(parts):
                raise ConfigError(f"lora {given!r}: a setting is given twice")
        else:
            raise TypeError
        for name in values:
            if name not in settings_of(cls):
                raise ConfigError(f"lora has no setting {name!r}: {nearest(name, settings_of(cls))}")
        return cls(**values)

    @property
    def text(self) -> str:
        """The settings: r and alpha, and others where they are not the defaults. `read` is its inverse."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        shown = {name: value for name, value in own.items() if name in ("r", "alpha") or value not in (0.0, (), False)}
        return ",".join(f"{name}={_written(value)}" for name, value in shown.items())


def refuse_methods_of_lora(methods: Iterable[str]) -> None:
    """See that methods, by their names, say something about a training of which the model's weights are no part.

    Raises:
        ConfigError: one does not.
    """
    if found := [name for name in methods if name in REFUSED]:
        raise ConfigError(f"{found[0]} works on weights that lora does not train: leave one of the two out")


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true"
    return "|".join(value) if isinstance(value, tuple) else f"{value:g}"
