"""The settings of a method: dataclass fields that know what they are for, what is allowed, and how to read text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from noisytune.errors import ConfigError


@dataclass(frozen=True)
class Setting:
    """What is known about one field besides its default."""

    about: str
    """What it does, a few words for a table."""
    allowed: str
    """The range, for tables and error messages."""
    read: Callable[[Any], Any]
    """The value from itself or from text. Raises ValueError or TypeError if it is not allowed."""


def number(default: float, about: str, allowed: str, holds: Callable[[float], bool]) -> Any:
    """A field for a finite number.

    Args:
        default: the field's default.
        about: what the setting does.
        allowed: the range, such as ``"0 <= p < 1"``.
        holds: whether a number lies in it.
    """

    def read(value: Any) -> float:
        if isinstance(value, bool) or not math.isfinite(float(value)) or not holds(float(value)):
            raise ValueError
        return float(value)

    return _field(default, Setting(about, allowed, read))


def whole(default: int, about: str, allowed: str, holds: Callable[[int], bool]) -> Any:
    """A field for a whole number; arguments as for `number`."""

    def read(value: Any) -> int:
        if isinstance(value, bool | float) or not holds(int(value)):
            raise ValueError
        return int(value)

    return _field(default, Setting(about, allowed, read))


def choice(default: str, about: str, *options: str) -> Any:
    """A field for one of several words."""

    def read(value: Any) -> str:
        if value not in options:
            raise ValueError
        return str(value)

    return _field(default, Setting(about, " or ".join(options), read))


def words(about: str) -> Any:
    """A field for any number of words; in text they are separated by ``|``."""

    def read(value: Any) -> tuple[str, ...]:
        parts = value.split("|") if isinstance(value, str) else list(value)
        if not all(isinstance(part, str) and part for part in parts):
            raise ValueError
        return tuple(parts)

    return _field((), Setting(about, "words separated by |", read))


def setting_of(field: dataclasses.Field[Any]) -> Setting:
    """What is known about a field of a method."""
    setting: Setting = field.metadata["setting"]
    return setting


def check(method: Any) -> None:
    """Validate every field of a frozen dataclass and put back the value that was read.

    Raises:
        ConfigError: a value is not allowed; names the method, the setting, the value and the range.
    """
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        setting = setting_of(field)
        try:
            object.__setattr__(method, field.name, setting.read(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"{method.name}: {field.name} must be {setting.allowed}, got {value!r}") from error


def _field(default: Any, setting: Setting) -> Any:
    return dataclasses.field(default=default, metadata={"setting": setting})
