"""Settings: dataclass fields that know what they are for, what is allowed, and how to read text.

Command line, study files and Python share them: an option, a key and an argument are one field, declared once.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from noisytune.errors import ConfigError


@dataclass(frozen=True)
class Setting:
    """What is known about one field besides its name and default.

    >>> Setting("Passes over the data.", "a whole number >= 1", int).read("3")
    3
    """

    about: str
    """What it does: a few words for a table, or a sentence for a help page."""
    allowed: str
    """The range, for tables and error messages: ``"0 <= p < 1"``."""
    read: Callable[[Any], Any]
    """The value from itself or from text. Raises ValueError or TypeError if it is not allowed."""
    type: type = str
    """Of one value, for front ends that convert."""
    metavar: str = "TEXT"
    """What stands for a value on a help page."""
    later: bool = False
    """Added when trials were kept already: their keys leave it out while it has its default, which may never change."""
    separator: str = ""
    """What stands between several values in text; empty for a field that holds one."""
    common: bool = False
    """Of use to most people: a help page shows it among the first."""


def number(default: float | None, about: str, allowed: str, holds: Callable[[float], bool], metavar: str = "X") -> Any:
    """A field for a finite number.

    Args:
        default: the field's default. None is then allowed too.
        about: what the setting does.
        allowed: the range, such as ``"0 <= p < 1"``.
        holds: whether a number lies in it.
        metavar: what stands for the number on a help page.
    """

    def read(value: Any) -> float:
        if isinstance(value, bool) or not math.isfinite(float(value)) or not holds(float(value)):
            raise ValueError
        return float(value)

    return _field(default, Setting(about, allowed, read, float, metavar))


def whole(default: int | None, about: str, allowed: str, holds: Callable[[int], bool], metavar: str = "N") -> Any:
    """A field for a whole number; arguments as for `number`."""

    def read(value: Any) -> int:
        found = int(value) if isinstance(value, str) else operator.index(value)
        if isinstance(value, bool) or not holds(found):
            raise ValueError
        return found

    return _field(default, Setting(about, allowed, read, int, metavar))


def seed(about: str, metavar: str = "N") -> Any:
    """A field that holds a seed, or None."""
    return whole(None, about, "0 <= seed < 2**32", lambda seed: 0 <= seed < 2**32, metavar)


def choice(default: str | None, about: str, *options: str) -> Any:
    """A field for one of several words."""

    def read(value: Any) -> str:
        if value not in options:
            raise ValueError
        return str(value)

    return _field(default, Setting(about, " or ".join(options), read, str, "|".join(options)))


def word_or_whole(about: str, *options: str) -> Any:
    """A field for one of several words, or a whole number >= 0; None by default."""

    def read(value: Any) -> str | int:
        if value in options and isinstance(value, str):
            return value
        found = int(value) if isinstance(value, str) else operator.index(value)
        if isinstance(value, bool) or found < 0:
            raise ValueError
        return found

    allowed = f"{' or '.join(options)} or a whole number >= 0"
    return _field(None, Setting(about, allowed, read, str, "|".join((*options, "N"))))


def switch(about: str) -> Any:
    """A field that is off unless it is given."""

    def read(value: Any) -> bool:
        if value not in (True, False, "true", "false"):
            raise ValueError
        return value in (True, "true")

    return _field(False, Setting(about, "true or false", read, bool, ""))


def words(
    about: str,
    allowed: str,
    separator: str = "|",
    metavar: str = "WORD",
    holds: Callable[[str], bool] = lambda word: True,
) -> Any:
    """A field for any number of words, none by default.

    Args:
        about: what the setting does.
        allowed: what the words are, for tables and error messages.
        separator: what stands between them in text.
        metavar: what stands for them on a help page.
        holds: whether a word is one of them.
    """

    def read(value: Any) -> tuple[str, ...]:
        parts = value.split(separator) if isinstance(value, str) else list(value)
        if not all(isinstance(part, str) and part.strip() and holds(part.strip()) for part in parts):
            raise ValueError
        return tuple(part.strip() for part in parts)

    return _field((), Setting(about, allowed, read, str, metavar, separator=separator))


def several(owner: Any, name: str, default: tuple[Any, ...]) -> Any:
    """A field for values of another dataclass's field, each once; in text they have commas between them."""
    one = setting_of(settings_of(owner)[name])

    def read(values: Any) -> tuple[Any, ...]:
        parts = [part.strip() for part in values.split(",")] if isinstance(values, str) else list(values)
        found = tuple(one.read(part) for part in parts if part != "")
        if not found or len(set(found)) < len(found):
            raise ValueError
        return found

    metavar = "NAME" if "|" in one.metavar else one.metavar
    allowed = f"one or several, none twice, of: {one.allowed}"
    setting = Setting(one.about, allowed, read, one.type, f"{metavar},...", separator=",", common=one.common)
    return _field(default, setting)


def text(default: str | None, about: str, allowed: str = "a name", metavar: str = "NAME") -> Any:
    """A field for a name."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError
        return value

    return _field(default, Setting(about, allowed, read, str, metavar))


def written(about: str, allowed: str, again: Callable[[Any], str], metavar: str) -> Any:
    """A field for several settings in one text; none by default.

    Args:
        about: what they do.
        allowed: what they are, for tables and error messages.
        again: the text in its one usual form, from any text that says the same.
        metavar: what stands for it on a help page.
    """
    return _field(None, Setting(about, allowed, again, str, metavar))


def path(about: str, metavar: str) -> Any:
    """A field for a file or a folder; none by default."""

    def read(value: Any) -> Path:
        if isinstance(value, bytes) or "\0" in os.fspath(value) or not os.fspath(value):
            raise ValueError
        return Path(value)

    return _field(None, Setting(about, "a path", read, Path, metavar))


def later(field: Any) -> Any:
    """The field, marked as added when trials were kept already: see `Setting.later`."""
    return _field(field.default, dataclasses.replace(setting_of(field), later=True))


def common(field: Any) -> Any:
    """The field, marked as of use to most people: see `Setting.common`."""
    return _field(field.default, dataclasses.replace(setting_of(field), common=True))


def keyed(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass that are part of a trial's key: all but `later` ones at their default.

    >>> @dataclass(frozen=True)
    ... class Training:
    ...     epochs: int = 3
    ...     freeze: int = later(whole(0, "Keep this many layers as they are.", ">= 0", lambda n: n >= 0))
    >>> keyed(Training()), keyed(Training(freeze=2))
    ({'epochs': 3}, {'epochs': 3, 'freeze': 2})
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    for name, field in settings_of(settings).items():
        if setting_of(field).later and values[name] == field.default:
            del values[name]
    return values


def like(owner: Any, name: str) -> Any:
    """A field with the default, the range and the words of another dataclass's field."""
    field = settings_of(owner)[name]
    return _field(field.default, setting_of(field))


def setting_of(field: dataclasses.Field[Any]) -> Setting:
    """What is known about a field.

    Args:
        field: of a dataclass whose fields come from this module.

    >>> @dataclass(frozen=True)
    ... class Training:
    ...     epochs: int = whole(3, "Passes.", "a whole number >= 1", lambda n: n >= 1)
    >>> setting_of(settings_of(Training)["epochs"]).allowed
    'a whole number >= 1'
    """
    setting: Setting = field.metadata["setting"]
    return setting


def settings_of(owner: Any) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a dataclass that are settings, by name, in order."""
    return {field.name: field for field in dataclasses.fields(owner) if "setting" in field.metadata}


def check(settings: Any, where: str = "") -> None:
    """Validate every setting of a frozen dataclass and put back the value that was read.

    Args:
        settings: the dataclass.
        where: before the name in an error message: ``"recadam: "``.

    Raises:
        ConfigError: a value is not allowed; names the setting, the value and the range.
    """
    for name in settings_of(settings):
        object.__setattr__(settings, name, read(settings, name, getattr(settings, name), where))


def read(owner: Any, name: str, value: Any, where: str = "") -> Any:
    """One setting of a dataclass from a value or text.

    Args:
        owner: the dataclass.
        name: of the setting.
        value: to read; None is itself where it is the default.
        where: before the name in an error message: ``"study.yaml, line 3: "``.

    Raises:
        ConfigError: no such setting, or the value is not allowed.
    """
    known = settings_of(owner)
    if name not in known:
        raise ConfigError(f"{where}there is no setting {name!r}: {nearest(name, known)}")
    if value is None and known[name].default is None:
        return None
    setting = setting_of(known[name])
    try:
        return setting.read(value)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}{name} must be {setting.allowed}, got {_short(value)}") from error


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def checked(owner: type[Any], given: Any) -> Any:
    """A dataclass of settings from itself, from values by name, or from None: the defaults.

    Raises:
        ConfigError: a name that it does not have (the nearest is named), or a value that is not allowed.

    >>> @dataclass(frozen=True)
    ... class Training:
    ...     epochs: int = whole(3, "Passes.", ">= 1", lambda n: n >= 1)
    >>> checked(Training, {"epochs": 5}).epochs, checked(Training, None).epochs
    (5, 3)
    """
    if given is None or isinstance(given, owner):
        return owner() if given is None else given
    known = [field.name for field in dataclasses.fields(owner)]
    for name in given:
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}: {nearest(name, known)}")
    return owner(**given)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say to somebody who wrote a name that does not exist.

    >>> nearest("epoch", ["epochs", "seeds"]), nearest("x", ["epochs", "seeds"])
    ("did you mean 'epochs'?", 'known: epochs, seeds')
    """
    known = list(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known: {', '.join(known)}" if known else "it has none"


def _field(default: Any, setting: Setting) -> Any:
    return dataclasses.field(default=default, metadata={"setting": setting})
