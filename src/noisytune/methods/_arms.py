"""Arms as people write them: ``noisytune(0.15)+mixout(p=0.9)``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import combinations
from typing import Any

from noisytune._settings import nearest
from noisytune.errors import ConfigError
from noisytune.methods._base import Method
from noisytune.methods._registry import METHODS

PLAIN = "plain"
"""The arm without any method."""

_PART = re.compile(r"\s*([\w-]+)\s*(?:\(([^()]*)\))?\s*")


def parse(text: str) -> tuple[Method, ...]:
    """The methods of an arm.

    Args:
        text: methods joined by ``+``, each with its settings in parentheses if they are not the defaults. The first
            setting may be given without its name. ``"plain"`` is no method at all.

    Returns:
        the methods in the order in which they are applied.

    Raises:
        ConfigError: unknown method or setting (the nearest known ones are named), a value out of range, or a
            combination that makes no sense.

    >>> [method.name for method in parse("noisytune(0.15, scale=global)")]
    ['noisytune']
    >>> parse("noisytune(0.15, scale=global)")[0].settings["scale"]
    'global'
    """
    if text.strip() == PLAIN:
        return ()
    methods: list[Method] = []
    # "+" may occur inside the parentheses too, as in 1e+3.
    for part in re.split(r"\+(?![^()]*\))", text):
        found = _PART.fullmatch(part)
        if found is None:
            raise ConfigError(f"arm {text!r}: {part!r} is no method(setting=value, ...)")
        methods.append(make(found[1], _arguments(text, found[1], found[2] or "")))
    return combine(methods)


def make(name: str, settings: Mapping[str, Any]) -> Method:
    """A method by its name and its settings.

    Args:
        name: a key of `METHODS`.
        settings: fields of the method's class; what is missing has its default.

    Raises:
        ConfigError: unknown method or setting, or a value out of range.

    >>> make("mixout", {"p": 0.8}).label
    'mixout(p=0.8)'
    """
    kind = method_class(name)
    known = [f.name for f in fields(kind)]
    for setting in settings:
        if setting not in known:
            raise ConfigError(f"{name} has no setting {setting!r}: {nearest(setting, known)}")
    return kind(**settings)


def method_class(name: str) -> type[Method]:
    """A method's class.

    Args:
        name: a key of `METHODS`.

    Raises:
        ConfigError: unknown; says the nearest known ones.

    >>> method_class("mixout").source
    'Lee et al. 2020, ICLR'
    """
    if name not in METHODS:
        raise ConfigError(f"there is no method {name!r}: {nearest(name, METHODS)}")
    return METHODS[name]


def combine(methods: Iterable[Method]) -> tuple[Method, ...]:
    """The methods in the order in which they are applied.

    Args:
        methods: of one arm.

    Raises:
        ConfigError: a method twice, two that exclude each other, or one that changes the weights after one that holds
            on to them.

    >>> [method.name for method in combine([make("neftune", {}), make("mixout", {})])]
    ['mixout', 'neftune']
    """
    given = list(methods)
    for first, second in combinations(given, 2):
        if first.name == second.name:
            raise ConfigError(f"{first.name} is given twice in one arm")
        reason = first.excludes.get(second.name) or second.excludes.get(first.name)
        if reason:
            raise ConfigError(f"{first.name}+{second.name}: {reason}")
        if first.stage > second.stage:
            raise ConfigError(
                f"{first.name}+{second.name}: {second.name} changes the weights that {first.name} starts from, so it "
                f"comes first: write {second.name}+{first.name}"
            )
    order = list(METHODS)
    return tuple(sorted(given, key=lambda method: order.index(method.name)))


def label(methods: Sequence[Method]) -> str:
    """The arm's name: its methods' labels.

    Args:
        methods: in the order in which they are applied; none is plain fine-tuning.

    >>> label(parse("noisytune(0.15)+mixout( p = 0.8 )")), label(())
    ('noisytune(0.15)+mixout(p=0.8)', 'plain')
    """
    return "+".join(method.label for method in methods) or PLAIN


def _arguments(text: str, name: str, inside: str) -> dict[str, str]:
    found: dict[str, str] = {}
    kind = METHODS.get(name)
    for place, part in enumerate(inside.split(",") if inside.strip() else []):
        setting, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and place == 0 and kind is not None and fields(kind):
            setting, value = fields(kind)[0].name, setting
        elif not equals and kind is not None:
            raise ConfigError(f"arm {text!r}: {part.strip()!r} lacks a name: write setting=value")
        if setting in found:
            raise ConfigError(f"arm {text!r}: {setting} is given twice")
        found[setting] = value
    return found
