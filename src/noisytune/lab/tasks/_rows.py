"""Rows of a source before their labels are understood, and the examples that come of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from noisytune.lab.kinds import Split, Target


@dataclass(frozen=True)
class Rows:
    """Texts and labels, in parallel. A cell that is not there is None."""

    where: str
    """File or name, for messages."""
    texts: list[tuple[str | None, ...]]
    labels: list[str | None]
    lines: list[int] = field(default_factory=list)
    """The number of each row's line, where the source has lines."""
    groups: tuple[str, ...] = ()
    """What each row belongs to, where that is said."""

    @property
    def name(self) -> str:
        """The file's name, for notices."""
        return Path(self.where).name


@dataclass(frozen=True)
class LeftOut:
    """Places of rows that became no example."""

    without_text: list[int]
    without_label: list[int]

    @property
    def places(self) -> list[int]:
        """All of them, in order."""
        return sorted([*self.without_text, *self.without_label])


def as_split(rows: Rows, target: Callable[[str | None], Target | None]) -> tuple[Split, LeftOut]:
    """The rows that have every text and a target, and the places of the others.

    Args:
        rows: what there is.
        target: class id or value of a label; None where the row has none.

    >>> split, left_out = as_split(Rows("t", [("a",), (None,), ("b",)], ["x", "x", None]), {"x": 1.0}.get)
    >>> split.texts, split.targets, left_out.places
    ((('a',),), (1.0,), [1, 2])
    """
    texts: list[tuple[str, ...]] = []
    targets: list[Target] = []
    groups: list[str] = []
    left_out = LeftOut([], [])
    for place, (row, label) in enumerate(zip(rows.texts, rows.labels, strict=True)):
        whole = tuple(text for text in row if text is not None)
        if len(whole) < len(row):
            left_out.without_text.append(place)
        elif (value := target(label)) is None:
            left_out.without_label.append(place)
        else:
            texts.append(whole)
            targets.append(value)
            groups += rows.groups[place : place + 1]
    return Split(tuple(texts), tuple(targets), groups=tuple(groups)), left_out
