"""What a column of labels means: classes or values. A label is the text that the file holds."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from noisytune._metrics import kinds_with
from noisytune.errors import DataError
from noisytune.lab.kinds import KINDS
from noisytune.lab.tasks._data import DEFAULTS, TaskOptions
from noisytune.lab.tasks._marks import NOT_GIVEN, look_alikes, no_labels

MAX_NUMBERED_CLASSES = 20
"""So many different whole numbers that repeat are classes, whichever they are."""

MAX_CLASS_IDS = 200
"""So many different ones are classes if they count from 0 or 1."""

REPEATS = 5
"""More than `MAX_NUMBERED_CLASSES` are classes only if each occurs so often on average."""

EMPTY = "(empty)"
"""Name of the class of the cells that hold nothing, where they are kept."""

_CODE = re.compile(r"[+-]?(0\d+|\d{16,})")
"""No number is written so: with leading zeros, or with more digits than a float holds."""

_WHOLE = re.compile(r"\A([+-]?\d+)\.0+\Z")


@dataclass(frozen=True)
class Reading:
    """How labels become targets."""

    kind: str
    names: tuple[str, ...]
    """Class names in id order; empty for regression."""
    notices: tuple[str, ...] = ()
    """What to say of the column, without its name."""
    left_out: frozenset[str] = frozenset()
    """Labels that stand for none."""
    empty: str | None = None
    """The class of empty cells, or None where they are left out."""

    @cached_property
    def _ids(self) -> dict[str, float]:
        return {name: float(i) for i, name in enumerate(self.names)}

    def target(self, label: str | None) -> float | None:
        """Class id or value of what `label_texts` gives; None where the row has no label."""
        if label is None:
            label = self.empty
        if label is None or label in self.left_out:
            return None
        return number(label) if not KINDS[self.kind].has_classes else self._ids.get(label)


def read_labels(labels: Iterable[str | None], options: TaskOptions = DEFAULTS, where: str = "labels") -> Reading:
    """Decide whether labels are classes or values, and which of them are none.

    ``kind`` decides it, then ``metric``. Without either, words are classes, and numbers are what `guess` says.

    Args:
        labels: those of train and dev, as `label_texts` gives them; None where there is none.
        options: ``kind``, ``metric`` and ``missing_labels`` are read here.
        where: file and column, for error messages.

    Raises:
        DataError: no label at all, words where values are asked for, or numbers that may be either.

    >>> read_labels(["pos", "neg", None, "pos"]).names
    ('neg', 'pos')
    """
    counts: Counter[str | None] = Counter(labels)
    empty = counts.pop(None, 0)
    present: Counter[str] = Counter({label: n for label, n in counts.items() if label is not None})
    marks = no_labels(present)
    words = [label for label in present if number(label) is None]
    # What stands for no number does not make words of the numbers beside it.
    telling = [label for label in words if label not in marks and label.lower() not in NOT_GIVEN]
    if not telling and len(words) == len(present):
        raise DataError(f"{where} has no labels; choose another with label_column")
    kind = _kind(Counter({label: present[label] for label in present if label not in words}), telling, options, where)
    left_out = _left_out(kind, words, telling, marks, options.missing_labels)
    if not KINDS[kind].has_classes and (odd := [label for label in words if label not in left_out]):
        rows = f"{sum(present[label] for label in odd):,} of {present.total():,} labels are none"
        raise DataError(f"{where} holds {odd[0]!r}, which is no number ({rows}); a regression needs numbers")
    kept = Counter({label: n for label, n in present.items() if label not in left_out})
    keeps_empty = options.missing_labels == "keep" and empty > 0 and KINDS[kind].has_classes
    if keeps_empty:
        kept[EMPTY] += empty
    notices = [] if telling else [_numbers_notice(kind, kept)]
    notices += _mark_notices(marks, left_out, present, options.missing_labels, kind)
    if not KINDS[kind].has_classes:
        return Reading(kind, (), tuple(notices), frozenset(left_out))
    notices += look_alikes(kept)
    return Reading(kind, in_order(kept), tuple(notices), frozenset(left_out), EMPTY if keeps_empty else None)


def guess(numbers: Counter[str]) -> str | None:
    """What a column of numbers is, or None where it may be either.

    Whole numbers that repeat are classes if they are few, if they count from 0 or 1, or if each occurs about as often
    as the others. Numbers that hardly repeat, and fractions, are values.

    Args:
        numbers: each number as it is written, and how often.

    >>> guess(Counter({"1": 40, "2": 60})), guess(Counter({"0.5": 3, "0.7": 1}))
    ('classification', 'regression')
    >>> guess(Counter({str(year): 5 + year % 20 for year in range(1950, 2020)})) is None
    True
    """
    values = {value for label in numbers if (value := number(label)) is not None}
    coded = any(map(_CODE.fullmatch, numbers))
    rows, different = numbers.total(), len(numbers)
    if 2 * different > rows:
        return None if coded else "regression"
    few = different <= MAX_NUMBERED_CLASSES
    if not all(map(float.is_integer, values)):
        # The same number in two spellings, as 1.1 and 1.10: numbers of sections, or careless values?
        return None if few and len(values) < different else "regression"
    if few or coded:
        return "classification"
    ids = min(values) in (0, 1) and different >= 0.9 * (max(values) - min(values) + 1) and different <= MAX_CLASS_IDS
    even = max(numbers.values()) <= 2 * min(numbers.values())
    return "classification" if rows >= REPEATS * different and (ids or even) else None


def _kind(numbers: Counter[str], words: list[str], options: TaskOptions, where: str) -> str:
    """What is asked for, or what the labels look like.

    Raises:
        DataError: they may be either.
    """
    if options.kind is not None or options.metric is not None:
        return options.kind or kinds_with(options.metric or "")[0]
    if words:
        return "classification"
    kind = guess(numbers)
    if kind is None:
        examples = ", ".join(in_order(numbers)[:3])
        raise DataError(
            f"{where} holds {len(numbers)} different numbers ({examples} ...) in {numbers.total():,} rows, which may "
            "be classes or values: say which with kind=classification or kind=regression"
        )
    return kind


def _left_out(kind: str, words: list[str], telling: list[str], marks: Counter[str], choice: str | None) -> set[str]:
    """The labels whose rows are left out."""
    if choice == "keep":
        return set()
    if choice == "drop":
        return {*marks, *(label for label in words if not telling and label.lower() in NOT_GIVEN)}
    # Without a choice a mark stays what the column makes of it: no number among values, a class among words.
    among_values = [label for label in words if label in marks and not KINDS[kind].has_classes]
    return {*among_values, *(label for label in words if not telling and label.lower() in NOT_GIVEN)}


def _numbers_notice(kind: str, kept: Counter[str]) -> str:
    if not KINDS[kind].has_classes:
        return "numbers, read as values; kind=classification reads them as classes"
    return f"{len(kept)} different numbers, read as classes; kind=regression reads them as values"


def _mark_notices(
    marks: Counter[str], left_out: set[str], present: Counter[str], choice: str | None, kind: str
) -> list[str]:
    """What to say of the labels that often mean that there is none."""
    told = []
    for label in in_order(Counter({label: present[label] for label in {*marks, *left_out}})):
        seen = f"{present[label]:,} of {present.total():,} rows have the label {label!r}"
        if label in left_out:
            told.append(f"{seen}: no label, these rows are left out; missing_labels=keep keeps them")
        elif choice is None:
            as_what = "class" if KINDS[kind].has_classes else "value"
            told.append(f"{seen}, which often means no label; it stays a {as_what}; missing_labels=drop leaves it out")
    return told


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Numbers by their size if all are numbers, else words by the alphabet.

    >>> in_order(["10", "9", "09"]), in_order(["b", "a", "10"])
    (('09', '9', '10'), ('10', 'a', 'b'))
    """
    values = {name: number(name) for name in names}
    if None in values.values():
        return tuple(sorted(values))
    return tuple(sorted(values, key=lambda name: (values[name], name)))


def label_texts(cells: Iterable[object]) -> list[str | None]:
    """The labels of a column as they are written; None where a cell holds none.

    White space around a label is left out. Where every number ends in ``.0``, as frames write whole numbers in a
    column with gaps, that ending is left out too.

    >>> label_texts(["1.0", " 2.0", ""]), label_texts(["1.0", "1"]), label_texts([1.0, 2, True])
    (['1', '2', None], ['1.0', '1'], ['1', '2', 'true'])
    """
    texts = [None if is_missing(cell) else name_of(cell) for cell in cells]
    written = {text for text in texts if text is not None and text.lower() not in NOT_GIVEN}
    if all(map(_WHOLE.fullmatch, written)):
        texts = [text and _WHOLE.sub(r"\1", text) for text in texts]
    return texts


def is_missing(cell: object) -> bool:
    """Whether a cell is empty: None, NaN or white space."""
    return (
        cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())
    )


def number(label: str) -> float | None:
    """The finite number that a label is, or None.

    >>> number("3.50"), number("four"), number("inf"), number("1_000")
    (3.5, None, None, None)
    """
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in label else None


def name_of(cell: object) -> str:
    """The text of a label. A number of a typed file is written with all its digits; 1.0 is the whole number 1.

    >>> name_of(12345678901234567), name_of(1.0), name_of(0.1), name_of(True), name_of(" good ")
    ('12345678901234567', '1', '0.1', 'true', 'good')
    """
    if isinstance(cell, bool):
        return str(cell).lower()
    text = str(cell).strip()
    return _WHOLE.sub(r"\1", text) if isinstance(cell, float) else text
