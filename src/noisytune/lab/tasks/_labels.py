"""What a column of labels means: classes or values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from noisytune.errors import DataError
from noisytune.lab.kinds.metrics import METRICS
from noisytune.lab.tasks._data import Kind

MAX_NUMBERED_CLASSES = 20
"""Whole numbers are class ids up to this many different ones, and values beyond."""

_NOT_GIVEN = {"nan", "na", "n/a", "null", "none"}
"""Words that stand for a missing number. Among words they are classes like any other."""


@dataclass(frozen=True)
class Reading:
    """How the cells of a label column become targets."""

    kind: Kind
    names: tuple[str, ...]
    """Class names in id order; empty for regression."""
    notices: tuple[str, ...]
    numeric: bool
    """Every label is a number."""

    @cached_property
    def _ids(self) -> dict[str, float]:
        return {name: float(i) for i, name in enumerate(self.names)}

    def target(self, cell: object) -> float | None:
        """Class id or value; None where the cell holds neither."""
        if is_missing(cell):
            return None
        value = number(cell) if self.numeric else None
        if self.kind == "regression":
            return value
        return self._ids.get(name_of(cell if value is None else value))


def read_labels(cells: Sequence[object], metric: str | None, where: str) -> Reading:
    """Decide whether labels are classes or values.

    A metric decides it. Without one: texts and booleans are classes; numbers are classes where all are whole, at most
    `MAX_NUMBERED_CLASSES` differ and each occurs twice on average; else they are values.

    Args:
        cells: every label of train and dev, missing ones included.
        metric: key of `METRICS` or None.
        where: file and column, for messages.

    Raises:
        DataError: every label is missing, or the metric needs numbers and there are others.

    >>> read_labels(["pos", "neg", "pos"], None, "reviews.csv: column 'label'").names
    ('neg', 'pos')
    """
    present = [cell for cell in cells if not is_missing(cell)]
    words = [c for c in present if number(c) is None and not (isinstance(c, str) and c.strip().lower() in _NOT_GIVEN)]
    values = [value for cell in present if (value := number(cell)) is not None]
    if not words and not values:
        raise DataError(f"{where} has no labels; choose another with --label-column")
    distinct = sorted(set(values))
    few = len(distinct) <= MAX_NUMBERED_CLASSES and 2 * len(distinct) <= len(values)
    kind: Kind = "classification" if words or (few and all(map(float.is_integer, values))) else "regression"
    if metric is not None:
        kind = METRICS[metric].kind
    if words:
        if kind == "regression":
            raise DataError(f"{where} holds {words[0]!r}, which is no number; the metric {metric} needs numbers")
        return Reading(kind, tuple(sorted({name_of(cell) for cell in present})), (), numeric=False)
    if kind == "classification":
        notice = f"{where}: {len(distinct)} different numbers, read as classes; --metric pearson reads them as values"
        return Reading(kind, tuple(name_of(value) for value in distinct), (notice,), numeric=True)
    notice = f"{where}: numbers, read as values (regression); --metric accuracy reads them as classes"
    return Reading(kind, (), (notice,), numeric=True)


def is_missing(cell: object) -> bool:
    """Whether a cell is empty: None, NaN or white space."""
    return (
        cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())
    )


def number(cell: object) -> float | None:
    """The finite number in a cell, or None. A boolean is no number.

    >>> number("3.50"), number(4), number("four"), number(True), number("inf")
    (3.5, 4.0, None, None, None)
    """
    if isinstance(cell, bool) or cell is None or (isinstance(cell, str) and "_" in cell):
        return None
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def name_of(cell: object) -> str:
    """A class's name: the same for 1 and 1.0, for True and "true".

    >>> name_of(1.0), name_of(1), name_of(True), name_of(" good ")
    ('1', '1', 'true', 'good')
    """
    if isinstance(cell, bool):
        return str(cell).lower()
    return f"{cell:.15g}" if isinstance(cell, (int, float)) else str(cell).strip()
