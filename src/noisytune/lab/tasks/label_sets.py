"""What a column of sets of labels means: ``a|b``, or a JSON list."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from noisytune.errors import DataError
from noisytune.lab.tasks._data import TaskOptions

MULTILABEL = "multilabel"
SEPARATOR = "|"


@dataclass(frozen=True)
class SetReading:
    """How cells become targets: a tuple of 0.0 and 1.0, one a label."""

    names: tuple[str, ...]
    """Labels in id order."""
    keep_empty: bool
    """Whether an empty cell is a set without labels."""
    where: str
    kind: str = MULTILABEL

    @cached_property
    def notices(self) -> tuple[str, ...]:
        """What to say of the column, without its name."""
        return (f"sets of {len(self.names)} labels (kind=classification reads each set as a class)",)

    def target(self, label: str | None) -> tuple[float, ...] | None:
        """The labels of a cell; None where the row has none."""
        if label is None:
            return (0.0,) * len(self.names) if self.keep_empty else None
        said = set(label_set(label, self.where))
        return tuple(float(name in said) for name in self.names)


def holds_sets(cells: Iterable[object], options: TaskOptions) -> bool:
    """Whether a column holds sets of labels: it is asked for, or its cells are lists."""
    asked = options.asks_for(MULTILABEL)
    return asked or (options.kind is None and any(isinstance(cell, list | tuple) for cell in cells))


def read_label_sets(labels: Iterable[str | None], options: TaskOptions, where: str) -> SetReading:
    """The labels that occur.

    Args:
        labels: a set a cell, as text; None where there is none.
        options: ``missing_labels`` is read here.
        where: file and column, for error messages.

    Raises:
        DataError: no label at all, or only one.
    """
    names = sorted({name for label in labels if label is not None for name in label_set(label, where)})
    if len(names) < 2:
        seen = f"only the label {names[0]!r}" if names else "no labels"
        raise DataError(f"{where} has {seen}; at least two are needed, with {SEPARATOR!r} between those of a row")
    return SetReading(tuple(names), options.missing_labels == "keep", where)


def label_set(cell: str, where: str) -> tuple[str, ...]:
    """The labels in a cell, each once.

    >>> label_set("sport | news|sport", "a.csv"), label_set('["sport", "news"]', "a.csv"), label_set("[]", "a.csv")
    (('sport', 'news'), ('sport', 'news'), ())
    """
    text = cell.strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f'{where}: {text[:40]!r} is no JSON list ({error}); write ["a", "b"] or a|b') from error
        if any(isinstance(part, list | dict) or part is None for part in parts):
            raise DataError(f'{where}: {text[:40]!r} holds more than labels; write ["a", "b"] or a|b')
    else:
        parts = text.split(SEPARATOR)
    return tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))
